"""The child of the catalogue: looks at the files of an archive, one after the other, until there are no more."""

from hpcxrf.archive.catalogue.recognise import answer_question
from hpcxrf.formats.children import serve
from hpcxrf.formats.first_look import become_child
from hpcxrf.formats.registry import scan_formats


def main() -> None:
    """Answer the questions of the walk."""
    become_child()
    scan_formats()
    import h5py

    del h5py
    serve(answer_question)


if __name__ == "__main__":
    main()
