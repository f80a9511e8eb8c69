"""Commands that need PyTorch and its companions, the extra [train]: without it they end before they begin."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click

from ecd_deploy.errors import UsageError

_MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "accelerate": "accelerate",
    "onnxscript": "onnxscript",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
}


class TrainingCommand(click.Command):
    """A command that needs the extra [train]."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, if it can be."""
        require_training()
        return super().invoke(ctx)


def require_training() -> None:
    """Look for the packages of the extra [train]; none is imported.

    Raises:
        UsageError: one is not installed.
    """
    for module, package in _MODULES.items():
        if find_spec(module) is None:
            raise UsageError(f"{package} is not installed: pip install 'ecd-deploy[train]'")
