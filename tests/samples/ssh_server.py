"""A private ssh server on the loopback with keys of its own: every host, for a client that reads its settings."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALL = "on Debian: apt-get install openssh-server openssh-client"


def missing_programs() -> list[str]:
    return [name for name in ("sshd", "ssh", "ssh-keygen") if _find(name) is None]


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")


@contextmanager
def ssh_server(folder: Path) -> Iterator[Path]:
    """Start a server; gives the settings with which `ssh -F` reaches it under any name."""
    folder.mkdir(mode=0o700)
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        # Debian makes it at boot; another user's server has no need of it.
        Path("/run/sshd").mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nPasswordAuthentication no\n"
        f"AllowUsers {getpass.getuser()}\nPermitRootLogin prohibit-password\n"
    )
    settings = folder / "ssh_config"
    settings.write_text(
        f"Host *\n HostName 127.0.0.1\n Port {port}\n IdentityFile {folder / 'user_key'}\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder / 'known_hosts'}\n StrictHostKeyChecking accept-new\n BatchMode yes\n"
    )
    command = [str(_find("sshd")), "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("w") as log, subprocess.Popen(command, stderr=log) as server:
        try:
            wait_until_open(port, server, (folder / "sshd.log").read_text)
            yield settings
        finally:
            server.terminate()


def wait_until_open(port: int, process: subprocess.Popen, said: Callable[[], str]) -> None:
    """Until a process listens on the loopback; `said` tells what it said where it ends instead."""
    for _ in range(600):
        assert process.poll() is None, said()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"port {port} is not open")
