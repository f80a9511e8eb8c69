from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ecd_deploy.errors import ArtefactError, DigestError
from ecd_deploy.files import is_partial, read_verified, sha256_file, write_atomic


def test_digest_is_that_of_hashlib(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"old")
    digest = write_atomic(path, b"new")
    assert read_verified(path, digest) == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ecd_deploy.files.os.fsync", full_disk)
    with pytest.raises(ArtefactError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_any_changed_byte_is_refused(tmp_path: Path, position: int) -> None:
    path = tmp_path / "file"
    digest = write_atomic(path, b"abc")
    content = bytearray(b"abc")
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(DigestError, match="was changed"):
        read_verified(path, digest)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="absent: No such file"):
        read_verified(tmp_path / "absent", "0")


def test_partial_names_are_recognised(tmp_path: Path) -> None:
    assert is_partial(tmp_path / ".model.onnx.0a0b.partial")
    assert not is_partial(tmp_path / "model.onnx")


def test_a_file_where_a_folder_should_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtefactError, match="cannot write"):
        write_atomic(tmp_path / "file" / "below", b"data")
