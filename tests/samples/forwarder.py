"""The far and the near end of a tunnel in one: a port of the loopback that leads to a Unix socket, as `ssh -L` does.

No ssh server can be counted on where tests run; ssh itself reads the printed line in `test_explore_job.py`.
"""

import socket
import threading
from contextlib import contextmanager, suppress


@contextmanager
def forwarded(path: str):
    """Lead a free port to a socket; gives its number."""
    listening = socket.create_server(("127.0.0.1", 0))
    open_ends: list[socket.socket] = []
    accepting = threading.Thread(target=_accept, args=(listening, path, open_ends), daemon=True)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        for one in (listening, *open_ends):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        accepting.join(10)
        for one in (listening, *open_ends):
            one.close()


def _accept(listening, path, open_ends):
    with suppress(OSError):
        while True:
            near, _ = listening.accept()
            far = socket.socket(socket.AF_UNIX)
            open_ends += [near, far]
            try:
                far.connect(path)
            except OSError:
                # As ssh does where the other end does not listen.
                near.shutdown(socket.SHUT_RDWR)
                continue
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source, sink):
    with suppress(OSError):
        while content := source.recv(1 << 16):
            sink.sendall(content)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
