from __future__ import annotations

import getpass
import random
import re
import site
import sys
from pathlib import Path

import pytest
import torch

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import refuse_local_paths
from ecd_deploy.exporters.files import paths

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
    monkeypatch.setattr("ecd_deploy.exporters.files.paths._TELLTALES", ())
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


def found_by_patterns_alone(data: bytes) -> int | None:
    """The first trace, by searching for whole patterns."""
    strong, weak = paths._local_traces()
    starts = [match.start() for trace in (*strong, *paths._TELLTALES) for match in trace.pattern.finditer(data)]
    for run in re.finditer(rb"[\x20-\x7e]{16,}", data):
        traces = (*weak, *paths._TELLTALES_IN_TEXT)
        starts += [run.start() + match.start() for trace in traces if (match := trace.pattern.search(run.group()))]
    return min(starts, default=None)


def test_what_is_looked_for_first_is_in_every_trace() -> None:
    fragments = [
        b"/",
        b"home",
        b"Users",
        b"tmp",
        b"opt",
        b"C:",
        b"\\",
        b"\\\\",
        b"a1",
        b".py",
        b".cu",
        b".hx",
        b"\0",
        b"\xff",
    ]
    fragments += [b"Documents and Settings", b"site", b"dist", b"-packages", b"private", b"var", b"folders", b" x = "]
    fragments += [getpass.getuser().encode(), str(Path.cwd()).encode(), sys.prefix.encode(), b"sixteen_letters_"]
    generator, found = random.Random(0), 0
    for _ in range(3_000):
        data = b"".join(generator.choices(fragments, k=generator.randint(2, 14)))
        expected = found_by_patterns_alone(data)
        if expected is None:
            refuse_local_paths(data, "onnx")
            continue
        found += 1
        with pytest.raises(ExportError, match=f"at byte {expected}:"):
            refuse_local_paths(data, "onnx")
    assert 300 < found < 2_700
