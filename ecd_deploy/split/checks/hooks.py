"""Check: no hook was left on the student, and its state is its tensors alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.compat.torch import has_extra_state, hooks_of, state_hooks_of
from ecd_deploy.split.results import HooksResult, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from ecd_deploy.distill import TrainingModel

# weight_norm and spectral_norm, which compute a layer's own weight by a hook.
_ALLOWED_ORIGIN = "torch.nn.utils"
# Their layers rename what older files call otherwise.
_ALLOWED_STATE_ORIGINS = ("torch", "torchvision", "timm")


def check_hooks(model: TrainingModel, fresh: nn.Module | None) -> HooksResult:
    """Look for hooks of forward, backward and state: even one that leads nowhere would run, and be traced.

    Args:
        model: the joint model.
        fresh: a fresh build of the student, whose own hooks of `state_dict` are allowed; None if there is none.
    """
    findings = [f"{hook} is a hook that was left behind" for hook in foreign_hooks(model.student)]
    expected = set() if fresh is None else {(name, hook) for name, _, hook in _state_hooks(fresh)}
    findings += [
        f"{name}[{key}] is a hook on the student's state, {hook}"
        for name, key, hook in _state_hooks(model.student)
        if (name, hook) not in expected and hook.partition(".")[0] not in _ALLOWED_STATE_ORIGINS
    ]
    modules = dict(model.student.named_modules(prefix="student"))
    findings += [
        f"{path}.get_extra_state adds to the student's state what is no tensor of it"
        for path, module in modules.items()
        if has_extra_state(module)
    ]
    return HooksResult(findings=listed(findings), passed=not findings, modules=len(modules))


def foreign_hooks(student: nn.Module) -> list[str]:
    """Where hooks hang that are not torch's own, and what they are, one a line."""
    return [
        f"{path}.{table}[{key}] ({_shown(hook)})"
        for path, module in student.named_modules(prefix="student")
        for table, hooks in hooks_of(module).items()
        for key, hook in hooks.items()
        if not _origin(hook).startswith(_ALLOWED_ORIGIN)
    ]


def _state_hooks(student: nn.Module) -> Iterator[tuple[str, int, str]]:
    """Module and table, key, and what the hook is."""
    for path, module in student.named_modules(prefix="student"):
        for table, hooks in state_hooks_of(module).items():
            for key, hook in hooks.items():
                yield f"{path}.{table}", key, _shown(hook)


def _origin(hook: object) -> str:
    return str(getattr(hook, "__module__", None) or type(hook).__module__)


def _shown(hook: object) -> str:
    return f"{_origin(hook)}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"
