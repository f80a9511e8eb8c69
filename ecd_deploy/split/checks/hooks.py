"""Check: no hook was left on the student."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.compat.torch import hooks_of
from ecd_deploy.split.results import HooksResult, listed

if TYPE_CHECKING:
    from torch import nn

    from ecd_deploy.distill import TrainingModel

# weight_norm and spectral_norm, which compute a layer's own weight by a hook.
_ALLOWED_ORIGIN = "torch.nn.utils"


def check_hooks(model: TrainingModel) -> HooksResult:
    """Look for forward and backward hooks: even one that leads nowhere would run, and be traced, on the device."""
    findings = [f"{hook} is a hook that was left behind" for hook in foreign_hooks(model.student)]
    modules = sum(1 for _ in model.student.modules())
    return HooksResult(findings=listed(findings), passed=not findings, modules=modules)


def foreign_hooks(student: nn.Module) -> list[str]:
    """Where hooks hang that are not torch's own, and what they are, one a line."""
    return [
        f"{path}.{table}[{key}] ({_shown(hook)})"
        for path, module in student.named_modules(prefix="student")
        for table, hooks in hooks_of(module).items()
        for key, hook in hooks.items()
        if not _origin(hook).startswith(_ALLOWED_ORIGIN)
    ]


def _origin(hook: object) -> str:
    return str(getattr(hook, "__module__", None) or type(hook).__module__)


def _shown(hook: object) -> str:
    return f"{_origin(hook)}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"
