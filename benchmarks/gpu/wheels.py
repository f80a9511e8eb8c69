"""The packages that a machine with PyTorch's usual companions lacks, as wheels that travel with the images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ecd_deploy.errors import ArtefactError

WHEELS = (
    "annotated_types==0.8.0",
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "tomli_w==1.2.0",
    "typing_extensions==4.16.0",
    "typing_inspection==0.4.5",
)
"""What of the dependencies and of the extra `train` is not `PRESENT`, and what that needs; of each one version."""

PRESENT = (
    *("torch", "torchvision", "accelerate", "safetensors", "onnx", "onnxscript", "onnxruntime", "flatbuffers"),
    *("click", "jinja2", "matplotlib", "numpy", "pillow", "rich", "scikit-learn", "scipy", "tensorboard"),
)
"""What the machine must have."""

_PYTHON = "3.12"
_PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64")


def download(folder: Path) -> list[Path]:
    """Put the wheels into a folder, for Python 3.12 on Linux, x86-64; others are taken away.

    Raises:
        ArtefactError: pip cannot fetch one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.whl"):
        stale.unlink()  # of two versions of a package none would be installed
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", _PYTHON, "--implementation", "cp", "--dest", str(folder)]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run([*command, *WHEELS], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArtefactError(f"pip cannot fetch {', '.join(WHEELS)}:\n{done.stderr.strip()}")
    return sorted(folder.glob("*.whl"))
