from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.images import measure
from benchmarks.images.archive import Configuration
from benchmarks.images.build import ROOT, copy_context
from benchmarks.images.container import Container, files_of

CONFIGURATION = Configuration(
    user="1000:1000", folder="/work", entrypoint=("ecd-deploy",), environment={"A": "b"}, labels={}, healthcheck=()
)


def test_without_buildah_it_ends_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"^Error: .*: apt-get install buildah bubblewrap mmdebstrap$"):
        measure()


def test_the_context_has_what_git_knows_and_planted_secrets(tmp_path: Path) -> None:
    copy_context(tmp_path)
    assert (tmp_path / "Dockerfile").read_bytes() == (ROOT / "Dockerfile").read_bytes()
    assert (tmp_path / "ecd_deploy" / "exporters").is_symlink()
    assert not list(tmp_path.rglob("__pycache__"))
    assert len(list(tmp_path.rglob(".env"))) == len(list(tmp_path.rglob(".git"))) == 3


def test_a_container_is_as_closed_as_it_is_said_to_be(tmp_path: Path) -> None:
    command = " ".join(Container(tmp_path, CONFIGURATION, tmp_path / "shared").wrapped())
    assert command.startswith(f"bwrap --ro-bind {tmp_path} / ")
    for part in (f"--bind {tmp_path}/shared /work", "--tmpfs /tmp", "--unshare-net", "--clearenv --setenv A b"):
        assert part in command
    assert command.endswith("setpriv --reuid=1000 --regid=1000 --clear-groups --no-new-privs")


def test_a_changed_file_of_the_root_is_seen(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    before = files_of(tmp_path)
    assert files_of(tmp_path) == before
    (tmp_path / "etc" / "left").touch()
    assert files_of(tmp_path) != before
