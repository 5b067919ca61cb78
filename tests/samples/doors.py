"""Knocking at the doors of a server."""

import http.client
import socket
import ssl
from types import SimpleNamespace


def request(port: int, target: str, method: str = "GET", **headers: str) -> SimpleNamespace:
    """Status, body and headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        body = b"" if answer.status == 101 else answer.read()
        return SimpleNamespace(status=answer.status, body=body, headers=str(answer.headers))
    finally:
        connection.close()


def first_bytes(port: int, context: ssl.SSLContext | None) -> bytes:
    """What a server says to whoever opens a connection; plain TCP without a context."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        if context is None:
            plain.sendall(bytes(64))
            return plain.recv(1)
        with context.wrap_socket(plain) as encrypted:
            return encrypted.recv(1)
