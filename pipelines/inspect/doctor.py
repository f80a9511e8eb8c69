"""A look at the machine before a long run."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecd_deploy.errors import ArtefactError
from ecd_deploy.pipelines.record.environment import TRAINING_PACKAGES, describe_environment

_WITHOUT_TRAINING = "not installed; needed to train and to export: pip install 'ecd-deploy[train]'"


def diagnose(console: Console) -> None:
    """Print versions and hardware; where no package is missing, run one convolution and list onnxruntime's providers.

    Raises:
        ArtefactError: a required package is missing or does not run.
    """
    environment = describe_environment()
    table = Table("what", "found", box=None)
    table.add_row("Python", environment.python)
    table.add_row("platform", environment.platform)
    table.add_row("processor", f"{environment.processor}, {environment.cores} cores")
    table.add_row("vector extensions", ", ".join(environment.cpu_flags) or "none that onnxruntime uses")
    table.add_row("memory", "unknown" if environment.memory_gib is None else f"{environment.memory_gib} GiB")
    table.add_row("free disk here", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB")
    for name, found in environment.packages.items():
        absent = _WITHOUT_TRAINING if name in TRAINING_PACKAGES else Text("missing", style="red")
        table.add_row(name, found or absent)
    missing = [name for name, found in environment.packages.items() if not found and name not in TRAINING_PACKAGES]
    if not missing:
        if find_spec("torch") is not None:
            table.add_row("torch device", _torch_device())
        table.add_row("providers", ", ".join(_onnxruntime_providers()))
    console.print(table)
    if missing:
        raise ArtefactError(f"missing packages: {', '.join(missing)}; install with pip install ecd-deploy")


def _torch_device() -> str:
    import torch

    images = torch.ones(1, 3, 8, 8)
    result = torch.nn.functional.conv2d(images, torch.ones(1, 3, 3, 3))
    if result[0, 0, 0, 0].item() != 27:
        raise ArtefactError("torch computes a wrong convolution on this machine")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{device}, {torch.get_num_threads()} threads"


def _onnxruntime_providers() -> list[str]:
    import onnxruntime

    providers: list[str] = onnxruntime.get_available_providers()
    if "CPUExecutionProvider" not in providers:
        raise ArtefactError("onnxruntime has no CPU provider here")
    return providers
