"""`python -m hpcxrf`."""

from hpcxrf.cli import main

if __name__ == "__main__":
    main()
