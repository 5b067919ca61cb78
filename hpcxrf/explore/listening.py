"""Where the explorer listens: a port of the loopback, or a socket that is a file of the user alone."""

import getpass
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.cluster.security import write_private
from hpcxrf.errors import OutputError

TUNNEL_PORT: Final = 8000
"""Port at the near end of a tunnel, on the user's own machine."""
_LONGEST_SOCKET: Final = 100
"""Bytes of the name of a socket: systems allow 104 or 108."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """An open door, and how to come to it."""

    sockets: tuple[socket.socket, ...]
    address: str
    """What is opened in a browser, `http://127.0.0.1:8000/`, at the near end of the tunnel where one is needed."""
    tunnel: str | None
    """Command that opens the tunnel, on the user's own machine; None: none is needed."""
    path: Path | None
    """The socket; None: it is a port."""


@contextmanager
def listen_on_port(port: int | None) -> Iterator[Listening]:
    """Listen on the loopback.

    Args:
        port: number; None: any that is free.

    Raises:
        OutputError: the port cannot be had.
    """
    try:
        bound = socket.create_server(("127.0.0.1", port or 0))
    except OSError as error:
        raise OutputError(
            f"port {port}: {error.strerror}; name another --port, or none for one that is free"
        ) from error
    bound.settimeout(0.0)
    number = bound.getsockname()[1]
    tunnel = None
    if "SSH_CONNECTION" in os.environ:
        # Whoever came by ssh has the browser elsewhere.
        from hpcxrf.cluster.login.tunnel import ssh_command

        tunnel = ssh_command(None, socket.gethostname(), number)
    try:
        yield Listening(sockets=(bound,), address=f"http://127.0.0.1:{number}/", tunnel=tunnel, path=None)
    finally:
        bound.close()


@contextmanager
def listen_on_socket(port: int = TUNNEL_PORT, root: Path | None = None) -> Iterator[Listening]:
    """Listen on a Unix socket, mode 0600 in a folder 0700 that is removed at the end.

    Args:
        port: of the tunnel's near end.
        root: folder of a local disk in which that folder is made; None: that of this login, else of temporary files.

    Raises:
        OutputError: no folder for it, or its name is too long.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="hpcxrf-explore-", dir=root or _find_private_root()))
    except OSError as error:
        raise OutputError(f"{error.filename}: {error.strerror}; a socket needs a folder of a local disk") from error
    path = folder / "explore.sock"
    try:
        if len(os.fsencode(path)) > _LONGEST_SOCKET:
            raise OutputError(f"{path}: too long a name for a socket; set TMPDIR to a shorter folder")
        bound = _bind(path)
        try:
            tunnel = f"ssh -N -L {port}:{path} {getpass.getuser()}@{socket.gethostname()}"
            yield Listening(sockets=(bound,), address=f"http://localhost:{port}/", tunnel=tunnel, path=path)
        finally:
            bound.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bind(path: Path) -> socket.socket:
    from tornado.netutil import bind_unix_socket

    try:
        bound: socket.socket = bind_unix_socket(str(path), mode=0o600)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; set TMPDIR to a folder of a local disk") from error
    return bound


@contextmanager
def open_in_browser(address: str) -> Iterator[None]:
    """Open an address that has a secret: it is passed in a file of the user alone, as command lines are public.

    Raises:
        OutputError: the file cannot be written.
    """
    import webbrowser

    folder = Path(tempfile.mkdtemp(prefix="hpcxrf-explore-"))
    try:
        page = folder / "open.html"
        write_private(page, f'<!doctype html>\n<meta http-equiv="refresh" content="0; url={address}">\n')
        webbrowser.open(page.as_uri())
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_private_root() -> str | None:
    """The folder that the system made for this login, where there is one; else that of temporary files."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        found = Path(named).stat() if named else None
    except OSError:
        found = None
    mine = found is not None and found.st_uid == os.getuid() and found.st_mode & 0o077 == 0
    return named if mine else None
