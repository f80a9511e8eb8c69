"""Every command of docs/tutorial.md, in its order, as a reader types it: in one shell, from an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small
from torchvision.transforms.v2.functional import normalize, pil_to_tensor, to_dtype

from tests.pipelines.sshd import MISSING, Server, start_server

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines() if line[:2] == "$ "]
DEVICE = re.compile(r"\braspberry\b")
# A busy test machine leaves latencies undecided, and nothing else.
UNDECIDED = re.compile(r"Error: (gate inconclusive: ((p90_ms_max|max_p50_ratio)(, )?)+;|this measurement is invalid)")


def files() -> dict[str, str]:
    """The files that the reader writes: each begins with its path."""
    named = (re.match(r"# (\S+\.\w+)\n", text) for kind, text in BLOCKS if kind != "console")
    return {found[1]: found.string for found in named if found}


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Server | None]:
    """An sshd that takes the device's part."""
    if MISSING:
        yield None
        return
    programs, temporary = tmp_path / "device" / "bin", tmp_path / "device" / "tmp"
    programs.mkdir(parents=True)
    temporary.mkdir()
    write_program(programs / "python3", f'exec "{sys.executable}" "$@"')
    found, process = start_server(tmp_path / "device", temporary, path=f"{programs}:{os.defpath}")
    yield found
    process.terminate()
    process.wait()


def write_program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def environment(folder: Path, device: Server | None) -> dict[str, str]:
    """The reader's: nothing of this project is on a path, and `raspberry` is known to ssh."""
    programs = folder / "programs"
    write_program(programs / "python", f'exec "{sys.executable}" "$@"')
    if device is not None:
        # ssh reads the settings of the user's real home, whatever HOME says.
        options = " ".join(f"'{word}'" for word in device.ssh[1:])
        host = f"-o HostName=127.0.0.1 -o User={device.user}"
        write_program(programs / "ssh", f'exec {shutil.which("ssh")} {options} {host} "$@"')
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}
    # pip finds what the project needs in the environment of the tests, and asks no network.
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_IGNORE_INSTALLED": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    return {
        **kept,
        **pip,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "COLUMNS": "200",
        "LENT": str(Path(pytest.__file__).parents[1]),
    }


def train_stand_in(folder: Path) -> None:
    """Put weights into torchvision's cache that know other drawings of the fabrics, in place of ImageNet's."""
    folder.mkdir()
    drawing = files()["make_photos.py"].replace("random.seed(0)", "random.seed(1)").replace("range(100)", "range(60)")
    subprocess.run([sys.executable, "-c", drawing], cwd=folder, check=True)
    photos = ImageFolder(str(folder / "photos"))
    preset = MobileNet_V3_Small_Weights.DEFAULT.transforms()
    pixels = torch.stack([to_dtype(pil_to_tensor(image), scale=True) for image, _ in photos])
    images, labels = normalize(pixels, preset.mean, preset.std), torch.tensor(photos.targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = mobilenet_v3_small()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # its own is for longer trainings
        criterion = nn.CrossEntropyLoss()
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        for _ in range(10):
            for batch in torch.randperm(len(images)).reshape(-1, 30):
                loss = criterion(network(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    cache = folder / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    torch.save(network.state_dict(), cache / MobileNet_V3_Small_Weights.DEFAULT.url.rpartition("/")[2])


# The new environment is lent what the project needs; the setuptools that some Pythons put there is too old to build it.
LEND = """for site in .venv/lib/python3*/site-packages; do
if [ -d $site ]; then echo "$LENT" >$site/lent.pth; rm -rf $site/setuptools*; fi
done"""


def script(commands: list[str]) -> str:
    steps = (
        f"echo '### {number}'\n{command}\ncode=$?\n{LEND}\necho \"### {number} ended with $code\""
        for number, command in enumerate(commands)
    )
    return "exec 2>&1\n" + "\n".join(steps)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_runs_in_its_order(tmp_path: Path, device: Server | None) -> None:
    folder = tmp_path / "reader"
    for name, text in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in ("ecd_deploy", "exporters", "pipelines", "pyproject.toml", "README.md", "LICENSE"):
        source, target = ROOT / name, folder / "ecd-deploy" / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    train_stand_in(tmp_path / "weights")
    commands = [command for command in COMMANDS if device is not None or not DEVICE.search(command)]
    shell = ["bash", "--noprofile", "--norc", "-c", script(commands)]
    reader = {**environment(tmp_path, device), "TORCH_HOME": str(tmp_path / "weights/torch")}
    done = subprocess.run(shell, cwd=folder, env=reader, capture_output=True, text=True, check=False, timeout=800)
    for number, command in enumerate(commands):
        output, code = re.findall(rf"^### {number}\n(.*?)^### {number} ended with (\d+)$", done.stdout, re.S | re.M)[0]
        undecided = "verdict: inconclusive" if "run.py" in command else UNDECIDED
        assert code == "0" or (code == "3" and re.search(undecided, output)), f"$ {command}\n{output}"
    installed = subprocess.run(
        [".venv/bin/python", "-I", "-c", "import ecd_deploy; print(ecd_deploy.__file__)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert installed.stdout.startswith(str(folder / ".venv"))  # it was not the source tree that ran
    classified = re.findall(r"^photos/(\w+)/007\.jpg: (\w+)", done.stdout, re.MULTILINE)
    assert len(classified) == 5
    assert sum(name == given for name, given in classified) >= 4
    (shown,) = (tomllib.loads(text) for kind, text in BLOCKS if kind == "toml" and text.startswith("[student]"))
    written = tomllib.loads((folder / "photos.toml").read_text().replace("mobilenet_v3_small", "resnet18"))
    assert shown["student"] == written["student"]
    report = (folder / "runs/ecd/report.md").read_text()
    assert "| plain | torchvision:mobilenet_v3_small |" in report
    if device is not None:
        assert device.left() == []
