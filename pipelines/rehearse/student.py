"""What is seen on a student before it is run: its parameters, its hooks, and whether it can be copied."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ecd_deploy.compat.torch import REGISTERS, accumulation_hooks, gradient_hooks, own_buffers, own_parameters
from ecd_deploy.distill.student.locate import described
from ecd_deploy.errors import StudentError, first_line, reraise_machine_fault
from ecd_deploy.split.checks.hooks import foreign_hooks


def check_parts(student: nn.Module) -> None:
    """Look at parameters, buffers, hooks and attributes; nothing is run.

    Raises:
        StudentError: naming what cannot be trained, copied or exported, and the way out.
    """
    compiled = next((name for name, one in student.named_modules() if isinstance(one, torch.jit.ScriptModule)), None)
    if compiled is not None:
        raise StudentError(
            f"{described(student, compiled or None)} is a TorchScript program: give the Python module it was made from"
        )
    _check_values(student)
    _check_types(student)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise StudentError(
            "no parameter of the student is trainable: all have requires_grad = False, or there is none; "
            "leave requires_grad on where the factory builds it"
        )
    if hooks := foreign_hooks(student):
        raise StudentError(f"the student has a hook of its own, {hooks[0]}; do its work in forward, or remove it")
    hooked = next(
        (name for name, one in student.named_parameters() if gradient_hooks(one) or accumulation_hooks(one)), None
    )
    if hooked is not None:
        raise StudentError(f"the student has a hook of its own, on the gradient of '{hooked}'; remove it")
    _check_copy(student)


def _check_values(student: nn.Module) -> None:
    lazy = [
        (name, owner)
        for name, owner, tensor in _tensors(student)
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer)
    ]
    if lazy:
        name, owner = lazy[0]
        raise StudentError(
            f"'{name}' of {described(student, owner)} is not initialised{_more(lazy)}: give the layer its number of "
            "inputs instead of a Lazy one, or run the student on an example in its factory"
        )
    meta = [(name, owner) for name, owner, tensor in _tensors(student) if tensor.is_meta]
    if meta:
        name, owner = meta[0]
        raise StudentError(
            f"'{name}' of {described(student, owner)} is on the meta device, where tensors have no values"
            f"{_more(meta)}: build the student on the CPU"
        )


def _check_types(student: nn.Module) -> None:
    others = [
        (name, owner, str(tensor.dtype).removeprefix("torch."))
        for name, owner, tensor in _tensors(student)
        if isinstance(tensor, nn.Parameter) and tensor.dtype != torch.float32
    ]
    if others:
        name, owner, dtype = others[0]
        raise StudentError(
            f"'{name}' of {described(student, owner)} is {dtype}{_more(others)}: students are trained and shipped in "
            "float32; build it so (train.mixed_precision lets it compute in less)"
        )


def _check_copy(student: nn.Module) -> None:
    try:
        copy.deepcopy(student)
    except Exception as error:  # what a user's class raises when it is copied, of any kind
        reraise_machine_fault(error)
        raise StudentError(
            f"the student cannot be copied, for {_uncopied(student)}: {first_line(error)}; make locks, files and "
            "caches where they are used, or outside the student"
        ) from error


def _uncopied(student: nn.Module) -> str:
    """The first attribute of a module that cannot be copied by itself."""
    for name, module in student.named_modules():
        for attribute, value in vars(module).items():
            if attribute in REGISTERS:
                continue
            try:
                copy.deepcopy(value)
            except Exception as error:  # noqa: BLE001 (what failed is reported by the caller)
                reraise_machine_fault(error)
                return f"'{attribute}' of {described(student, name or None)}, a {type(value).__name__}"
    return "one of its modules"


def _tensors(student: nn.Module) -> Iterator[tuple[str, str | None, torch.Tensor]]:
    """Name, owner's name and tensor of each parameter and buffer."""
    for path, module in student.named_modules():
        for name, tensor in (*own_parameters(module).items(), *own_buffers(module).items()):
            if tensor is not None:
                yield name, path or None, tensor


def _more(found: Iterable[object]) -> str:
    others = len(tuple(found)) - 1
    return f", and {others} more" if others else ""
