from __future__ import annotations

import getpass
import site
import sys
from pathlib import Path

import pytest
import torch

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import refuse_local_paths

TRACES = [
    f"{Path.cwd()}/runs",
    f"{Path.home()}/runs",
    f"{sys.prefix}/lib",
    f"{site.getsitepackages()[0]}/torch",
    f"/srv/{getpass.getuser()}/runs",
    "/home/somebody/project",
    "/Users/somebody/project",
    r"C:\Users\somebody\project",
    'File "/srv/build/student.py", line 3',
    "lib/python3.11/site-packages/torch",
]


@pytest.mark.parametrize("trace", TRACES)
def test_a_path_is_found_with_its_place(trace: str) -> None:
    data = b"\x00weights\xff" + trace.encode() + b"\x00more"
    with pytest.raises(ExportError, match=r"the onnx artefact holds a local path at byte \d+: "):
        refuse_local_paths(data, "onnx")


def test_names_inside_an_archive_are_no_local_paths() -> None:
    names = b"archive/code/__torch__/ecd_deploy/models/resnet.py\x00layer1/0/conv\x00node_/layer1/conv2d"
    assert refuse_local_paths(names, "torchscript") is None  # type: ignore[func-returns-value]


def test_the_working_directory_is_looked_for_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("ecd_deploy.exporters.paths._TELLTALES", ())
    with pytest.raises(ExportError, match="somewhere"):
        refuse_local_paths(str(folder).encode() + b"\x00", "onnx")


def test_random_weights_raise_no_alarm() -> None:
    weights = torch.randint(0, 256, (4_000_000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert refuse_local_paths(weights.numpy().tobytes(), "onnx") is None  # type: ignore[func-returns-value]


def test_a_short_user_name_counts_only_inside_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ci")
    refuse_local_paths(b"\x00\x91/ci/\xfe\x80 weights spell anything", "onnx")
    with pytest.raises(ExportError, match="/ci/work"):
        refuse_local_paths(b"\x00 made in /srv/ci/work today\x00", "onnx")
