"""Commands that need PyTorch and its companions, the extra [train]: without it they end before they begin."""

from __future__ import annotations

from typing import Any

import click

from ecd_deploy.core import require_training


class TrainingCommand(click.Command):
    """A command that needs the extra [train]."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, if it can be."""
        require_training()
        return super().invoke(ctx)
