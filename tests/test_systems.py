"""The core on systems that lack what Linux has: modules, functions of `os`, flags and links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ecd_deploy import system
from tests.measure.models import convolution_model
from tests.without import run_without

_LACKING = """
import os
for name in "sched_getaffinity sched_setaffinity posix_fallocate symlink sysconf O_NOFOLLOW O_DIRECTORY".split():
    delattr(os, name)
import signal
del signal.setitimer
"""
_USED = """
import io, sys
from pathlib import Path
import numpy as np
from PIL import Image
import ecd_deploy.cli, ecd_deploy.pipelines.bundle.bundle, ecd_deploy.pipelines.gate.rerun, ecd_deploy.pipelines.run
import ecd_deploy.pipelines.report.write, ecd_deploy.pipelines.verify.verify, ecd_deploy.pipelines.device.command
import ecd_deploy.measure.predictors.untrusted_runner
from ecd_deploy.data import load_data
from ecd_deploy.measure.latency.measurement import measure_onnx
from ecd_deploy.pipelines.inspect.doctor import diagnose
from ecd_deploy.pipelines.record.run_directory import create_run
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.recipe.recipe import load_recipe
from rich.console import Console

draw = np.random.default_rng(0)
for split in ("train", "test"):
    for name in "ab":
        for number in range(4):
            path = Path(split, name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
config = DataConfig(source="imagefolder", path=".", cache_dir="cache")
digests = {load_data(config, seed=0).digest for _ in range(2)}
with create_run(Path("run"), load_recipe("digits"), resume=False):
    diagnose(Console(file=io.StringIO()))
profile = ProfileConfig(min_seconds=0.1, warmup_seconds=0.0, min_samples=10)
measured = measure_onnx(Path(sys.argv[1]).read_bytes(), profile)
print(len(digests), sorted(path.name for path in Path("run").iterdir()), measured.latency.percentiles[1].value_ms > 0)
"""


def test_the_core_works_without_what_linux_alone_has(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution_model())
    ended = run_without(("fcntl", "resource"), _LACKING + _USED, [model], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out == "1 ['.lock', 'MANIFEST.json', 'recipe.toml'] True\n"


def test_a_lock_is_one_processes_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        system.lock(first, wait=False)
        with pytest.raises(OSError, match="temporarily unavailable"):
            system.lock(second, wait=False)


def test_cpus_and_memory_are_the_machines() -> None:
    assert set(system.usable_cpus()) == os.sched_getaffinity(0)
    memory = system.memory_gib()
    assert memory is not None
    assert memory > 0.1
