"""TLS between driver, scheduler and workers: fresh key material for every start, gone with it.

A plain Dask port, on loopback too, lets every local user run code as the owner of the run. All roles
share one self-signed certificate, so whoever holds the key file is trusted: it lives in memory, or, for
workers on other nodes, in a private folder of the run directory.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcxrf.errors import OutputError

if TYPE_CHECKING:
    from distributed import Security

FILE_NAMES: Final = ("ca.pem", "cert.pem", "key.pem")
"""Names of the credentials in their folder: authority, certificate, key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where a worker on another node finds its credentials (PEM)."""

    ca: Path
    """Certificate of the authority."""
    cert: Path
    """Certificate of the worker."""
    key: Path
    """Key of that certificate."""


def temporary_security() -> "Security":
    """New key and certificate, in memory only; encryption is required of every connection."""
    from distributed import Security

    return Security.temporary()


def write_security(security: "Security", folder: Path) -> TlsFiles:
    """Write the workers' credentials, mode 0600, into `folder`, which is made 0700.

    What an earlier start left there is replaced.

    Args:
        security: result of `temporary_security`: PEM texts in memory.
        folder: folder in the run directory, on a file system that the workers see.

    Returns:
        The three paths.

    Raises:
        OutputError: `folder` is a link, belongs to another user or cannot be written.
    """
    private_folder(folder)
    remove_files(folder)
    texts = (security.tls_ca_file, security.tls_worker_cert, security.tls_worker_key)
    for name, text in zip(FILE_NAMES, texts, strict=True):
        write_private(folder / name, text)
    ca, cert, key = (folder / name for name in FILE_NAMES)
    return TlsFiles(ca=ca, cert=cert, key=key)


def remove_security(folder: Path) -> None:
    """Remove the credentials, and the folder if nothing else is in it; nothing there is no error."""
    if not folder.is_dir():
        return
    remove_files(folder)
    if not any(folder.iterdir()):
        folder.rmdir()


def remove_files(folder: Path) -> None:
    """Unlink the credential files of `folder`, as far as they exist."""
    for name in FILE_NAMES:
        (folder / name).unlink(missing_ok=True)


def private_folder(folder: Path) -> Path:
    """Make `folder` with mode 0700, or tighten an existing one that belongs to this user.

    Raises:
        OutputError: it is a link, not a folder, another user's, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise OutputError(
                f"{folder}: it is a link or belongs to another user; secrets need a folder of your own: "
                "remove it and start again"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}; secrets need a writable folder") from error
    return folder


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path`, mode 0600 from the first byte, by a temporary name.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        # O_EXCL: a link put here by somebody else is not followed.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; it must be writable") from error
