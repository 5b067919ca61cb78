"""Credentials are private files that go with their run."""

import ssl
import stat
from pathlib import Path

import pytest

from hpcxrf.cluster import security as credentials
from hpcxrf.errors import OutputError


def test_credentials_are_private_files_that_replace_older_ones_and_go(tmp_path: Path) -> None:
    folder = tmp_path / "secrets" / "tls"
    credentials.write_security(credentials.temporary_security(), folder)
    folder.chmod(0o755)
    security = credentials.temporary_security()
    files = credentials.write_security(security, folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}
    assert sorted(folder.iterdir()) == [files.ca, files.cert, files.key]
    assert files.key.read_text() == security.tls_worker_key
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    credentials.remove_security(folder)
    assert not folder.exists()
    credentials.remove_security(folder)


def test_removing_credentials_leaves_other_files_alone(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    credentials.write_security(credentials.temporary_security(), folder)
    (folder / "notes").touch()
    credentials.remove_security(folder)
    assert [path.name for path in folder.iterdir()] == ["notes"]


def test_credentials_are_never_written_through_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "tls").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="link"):
        credentials.write_security(credentials.temporary_security(), tmp_path / "tls")
    assert not list(elsewhere.iterdir())


def test_starts_never_share_a_key() -> None:
    keys = {credentials.temporary_security().tls_client_key for _ in range(2)}
    assert len(keys) == 2
