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
    threading.Thread(target=_accept, args=(listening, path), daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


def _accept(listening, path):
    while True:
        try:
            near, _ = listening.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(path)
        except OSError:
            # As ssh does where the other end does not listen.
            near.close()
            far.close()
            continue
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source, sink):
    with suppress(OSError):
        while content := source.recv(1 << 16):
            sink.sendall(content)
    for one, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with suppress(OSError):
            one.shutdown(how)
