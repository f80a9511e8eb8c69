"""Interfaces of torch that are private or not documented; each function names the one that it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from torch.amp.grad_scaler import GradScaler
    from torch.fx import Node

REGISTERS = ("_parameters", "_buffers", "_modules")
"""Under which of its attributes an `nn.Module` keeps what is registered with it."""

_HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_STATE_HOOK_TABLES = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_PROVENANCE = ("stack_trace", "source_fn_stack", "nn_module_stack", "torch_fn", "from_node")
_GROWTH_TRACKER = "_growth_tracker"


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The parameters registered with the module itself, twice where they are tied: `Module._parameters`, live."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The buffers registered with the module itself: `Module._buffers`, live."""
    return module._buffers


def own_children(module: nn.Module) -> dict[str, nn.Module | None]:
    """The modules registered with the module itself, twice where they hang twice: `Module._modules`, live."""
    return module._modules


def unwrapped(module: nn.Module) -> nn.Module:
    """The module without `torch.compile` and DataParallel around it or its parts: `OptimizedModule._orig_mod`.

    What was compiled in place, `Module.compile` or an own `forward`, runs as it is written again:
    `Module._compiled_call_impl`, and `_torchdynamo_orig_callable` of a compiled function.
    """
    while (inner := _wrapped(module)) is not None:
        module = inner
    for part in list(module.modules()):
        vars(part).pop("_compiled_call_impl", None)  # not None: TorchScript cannot read the type of such an attribute
        if hasattr(vars(part).get("forward"), "_torchdynamo_orig_callable"):
            del part.forward
        for name, child in own_children(part).items():
            if child is not None:
                own_children(part)[name] = unwrapped(child)
    return module


def _wrapped(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner: nn.Module = module.module
        return inner
    # by its name: to import its class loads the compiler, which takes a second
    return own_children(module).get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def hooks_of(module: nn.Module) -> Mapping[str, Mapping[int, object]]:
    """The hooks of forward and backward by the name of their table: `Module._forward_hooks` and its like."""
    return {table: getattr(module, table) for table in _HOOK_TABLES}


def state_hooks_of(module: nn.Module) -> Mapping[str, Mapping[int, object]]:
    """The hooks of `state_dict` and `load_state_dict` by table, unwrapped: `Module._state_dict_hooks` and its like."""
    return {
        table: {key: getattr(hook, "hook", hook) for key, hook in getattr(module, table).items()}
        for table in _STATE_HOOK_TABLES
    }


def has_extra_state(module: nn.Module) -> bool:
    """Whether `state_dict` asks the module for more than its tensors: an own `Module.get_extra_state`."""
    return getattr(module.get_extra_state, "__func__", None) is not nn.Module.get_extra_state


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether a call runs more than `forward`: `Module._forward_pre_hooks` and `_forward_hooks`."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def move_towards(tensors: list[Tensor], targets: list[Tensor], rate: Tensor) -> None:
    """Move tensors in place by a share of the way to others, few kernels for all of them: `torch._foreach_sub` etc."""
    ways = torch._foreach_sub(targets, tensors)
    torch._foreach_mul_(ways, rate)
    torch._foreach_add_(tensors, ways)


def add_numbers(tensors: list[Tensor], numbers: list[int]) -> None:
    """Add a number to each tensor in place, few kernels for all of them: `torch._foreach_add_`."""
    torch._foreach_add_(tensors, numbers)


def is_normalisation(module: nn.Module) -> TypeGuard[_NormBase]:
    """Whether it may keep running statistics, as batch norms do: `torch.nn.modules.batchnorm._NormBase`."""
    return isinstance(module, _NormBase)


def convolution_padding(conv: nn.Conv2d) -> list[int]:
    """The padding as `torch.nn.functional.pad` takes it: `Conv2d._reversed_padding_repeated_twice`."""
    return list(conv._reversed_padding_repeated_twice)


def version_of(tensor: Tensor) -> int:
    """How often the tensor, or a view of the same memory, was written to in place: `Tensor._version`."""
    return tensor._version


def is_view(tensor: Tensor) -> bool:
    """Whether autograd takes the tensor for a view of another: `Tensor._is_view`."""
    return tensor._is_view()


def is_vmapped(tensor: Tensor) -> bool:
    """Whether `torch.func.vmap` maps over the tensor, one of several trainings: `torch._C._functorch`."""
    return torch._C._functorch.is_batchedtensor(tensor)


def gradient_hooks(tensor: Tensor) -> object:
    """What `Tensor.register_hook` was given, or None: `Tensor._backward_hooks`."""
    return tensor._backward_hooks


def accumulation_hooks(parameter: Tensor) -> object:
    """What `register_post_accumulate_grad_hook` was given, or None: `Tensor._post_accumulate_grad_hooks`."""
    return parameter._post_accumulate_grad_hooks


def saved_tensor_hooks() -> object:
    """The innermost hooks for saved tensors, or None: `torch._C._autograd._top_saved_tensors_default_hooks`.

    Activation checkpointing sets some while the function runs that it will run again.
    """
    hooks: tuple[object, object] | None = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if hooks is None else hooks[0]


def storage_identity(tensor: Tensor) -> int:
    """A number that all views of one memory share, also without data: `UntypedStorage._cdata`."""
    return int(tensor.untyped_storage()._cdata)


def refer_to_storage(tensor: Tensor) -> StorageWeakRef:
    """What keeps the number of a tensor's memory, its `cdata`, from being another's, and not the memory itself."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def with_storage(
    holder: Tensor, dtype: torch.dtype, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> Tensor:
    """A tensor on the memory of another one, of any type and size: `Tensor.set_`."""
    empty = torch.empty(0, dtype=dtype, device=holder.device)
    return empty.set_(holder.untyped_storage(), offset, size, stride)


def schema_of(operator: object) -> torch._C.FunctionSchema | None:
    """The schema of an operator of a graph, None for anything else: `OpOverload._schema`."""
    schema: torch._C.FunctionSchema | None = getattr(operator, "_schema", None)
    return schema


def is_higher_order(operator: object) -> bool:
    """Whether an operator of a graph runs graphs of its own, as `cond` does: `torch._ops.HigherOrderOperator`."""
    return isinstance(operator, HigherOrderOperator)


def traced_value(node: Node) -> object:
    """What the tracer ran with at a node, a tensor without data or None: `Node.meta["val"]`."""
    return node.meta.get("val")


def innermost_module(node: Node) -> str:
    """The path of the module that an exported node was called in, or "": `Node.meta["nn_module_stack"]`."""
    stack: Mapping[str, tuple[str, Any]] | None = node.meta.get("nn_module_stack")
    return next(reversed(list(stack.values())))[0] if stack else ""


def is_fresh_copy(operator: object) -> bool:
    """Whether an operator of a graph copies what a forward spells out, `torch.tensor(...)`: `aten.lift_fresh_copy`."""
    return "lift_fresh" in str(operator)


def forget_provenance(node: Node) -> None:
    """Take from a node where in which file it was written: keys of `Node.meta` that say nothing of what it does."""
    for key in _PROVENANCE:
        node.meta.pop(key, None)


def growth_tracker(scaler: GradScaler) -> int:
    """Steps since the loss scale last changed: `GradScaler.state_dict()["_growth_tracker"]`."""
    return int(scaler.state_dict()[_GROWTH_TRACKER])


def restore_scale(scaler: GradScaler, *, scale: float, growth: int) -> None:
    """Put scale and `growth_tracker` back, and leave the scaler's settings: `GradScaler.load_state_dict`."""
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale, _GROWTH_TRACKER: growth})


@dataclass(frozen=True)
class FoundOperator:
    """An operator of a forward, the type that it gave, and the module in whose forward it ran, None for the root's."""

    operator: str
    dtype: str
    module: str | None


def lowered_precision(module: nn.Module, images: Tensor) -> FoundOperator | None:
    """The first operator of a forward without gradients that gives float16, bfloat16 or less: `TorchDispatchMode`."""

    def lowers(_operator: str, _given: Sequence[object], output: object) -> bool:
        return isinstance(output, Tensor) and output.is_floating_point() and output.dtype.itemsize < 4

    return _first_operator(module, images, lowers)


def value_read(module: nn.Module, images: Tensor) -> FoundOperator | None:
    """Where a forward first makes a number of Python of what it computed from the images, as an `if` does.

    By `TorchDispatchMode`: `aten._local_scalar_dense` is what `bool`, `float` and `item` of a tensor call.
    """
    computed: dict[int, object] = {id(images): images}  # kept, so that no other tensor gets the same identity

    def reads(operator: str, given: Sequence[object], output: object) -> bool:
        if not any(id(entry) in computed for entry in given):
            return False
        computed.update((id(entry), entry) for entry in tree_leaves(output))
        return operator == "_local_scalar_dense"

    return _first_operator(module, images, reads)


def _first_operator(
    module: nn.Module, images: Tensor, found_by: Callable[[str, Sequence[object], object], bool]
) -> FoundOperator | None:
    """The first operator of a forward of which that holds, given its name, what it was given and what it gave."""
    stack: list[str] = []
    found: list[FoundOperator] = []

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        supports_higher_order_operators = True

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            name = str(func).split(".")[1] if str(func).startswith("aten.") else str(func)
            if not found and found_by(name, tree_leaves((args, kwargs)), output):
                dtype = str(output.dtype).removeprefix("torch.") if isinstance(output, Tensor) else "a number"
                found.append(FoundOperator(name, dtype, stack[-1] or None))
            return output

    handles = []
    for name, child in module.named_modules():
        handles.append(child.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        handles.append(child.register_forward_hook(lambda *_: stack.pop() and None, always_call=True))
    try:
        with torch.no_grad(), Watch():  # type: ignore[no-untyped-call]
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def mutable_attributes(module: nn.Module) -> Mapping[str, object]:
    """What a forward could keep in attributes of its modules, by path, in a form that tells whether it changed.

    All in `vars(module)` but what torch itself keeps there, and the registers.
    """
    own = vars(nn.Module()).keys()
    return {
        f"{path}.{name}" if path else name: _form(value, type(child).__module__.partition(".")[0])
        for path, child in module.named_modules()
        for name, value in vars(child).items()
        if name not in own
    }


def _form(value: object, home: str) -> object:
    if isinstance(value, dict):
        return {repr(key): _form(item, home) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_form(item, home) for item in value]
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, bool | int | float | str | bytes | type(None)):
        return value
    # an object of the user's own keeps its state in attributes; those of others are not looked into
    own = type(value).__module__.partition(".")[0] == home and hasattr(value, "__dict__")
    return [_form(item, "") for item in vars(value).values()] if own else id(value)
