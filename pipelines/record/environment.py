"""What a run was made with: versions and hardware, without names of users, hosts or folders."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from ecd_deploy.pipelines.record.names import ENVIRONMENT_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.records import Record
from ecd_deploy.system import memory_gib, usable_cpus

PACKAGES = (
    "ecd-deploy",
    "torch",
    "torchvision",
    "accelerate",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
)
TRAINING_PACKAGES = frozenset({"torch", "torchvision", "accelerate", "onnxscript"})
"""Those of `PACKAGES` that the extra [train] brings."""

_DRIVER = Path("/proc/driver/nvidia/version")


class Environment(Record):
    """Written to `environment.json`."""

    schema_version: Literal[1] = 1
    python: str
    platform: str
    processor: str
    cores: int
    memory_gib: float | None
    """None where the system does not say."""
    cpu_flags: tuple[str, ...]
    packages: dict[str, str | None]
    """Version by package; None where it is not installed."""
    accelerator: str | None = None
    """Name of the first GPU that torch can use; None where there is none, or where torch was not needed."""
    driver: str | None = None
    """Version of NVIDIA's kernel module; None where there is none."""
    cudnn: int | None = None
    """Version of cuDNN; None where torch has none, or was not needed."""


def describe_environment() -> Environment:
    """Read versions and hardware; nothing heavy is imported."""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        processor=_cpu_field("model name") or platform.machine(),
        cores=len(usable_cpus()),
        memory_gib=memory_gib(),
        cpu_flags=_relevant_flags(),
        packages={name: _version(name) for name in PACKAGES},
        accelerator=_accelerator(),
        driver=_driver(),
        cudnn=_cudnn(),
    )


def record_environment(directory: RunDirectory) -> Environment:
    """Write `environment.json`."""
    environment = describe_environment()
    directory.write_json(ENVIRONMENT_NAME, environment)
    return environment


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _accelerator() -> str | None:
    if "torch" not in sys.modules:
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _cudnn() -> int | None:
    if _accelerator() is None:
        return None
    import torch

    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version


def _driver() -> str | None:
    """From a line such as `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 ...`."""
    if not _DRIVER.is_file():
        return None
    found = re.search(r"^NVRM version:.*?\s(\d+\.[\d.]+)\s", _DRIVER.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else None


def _cpu_field(name: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _relevant_flags() -> tuple[str, ...]:
    # These decide which kernels onnxruntime chooses, INT8 ones above all.
    relevant = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm"}
    flags = set((_cpu_field("flags") or _cpu_field("Features")).split())
    return tuple(sorted(flags & relevant))
