"""Every tensor that a module owns, by name, and the digest of them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import REGISTERS, own_buffers, own_parameters
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split.records import TensorKind, TensorRecord, records_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class NamedTensor(NamedTuple):
    """A tensor and where it hangs; `attribute` is a plain tensor, alone or in a container."""

    name: str
    kind: TensorKind
    tensor: Tensor


def named_tensors(module: nn.Module, prefix: str = "") -> tuple[NamedTensor, ...]:
    """List the parameters, buffers (persistent or not) and plain tensor attributes of a module and its children.

    A child that hangs at two places is listed once; a tensor that two children share is listed under both names.
    """
    return tuple(_iterate(module, prefix))


def auxiliary_tensors(auxiliary: Mapping[str, nn.Module]) -> tuple[NamedTensor, ...]:
    """List the tensors of each auxiliary module, their names led by the module's key."""
    return tuple(entry for name, module in auxiliary.items() for entry in named_tensors(module, name))


def tensor_records(module: nn.Module) -> tuple[TensorRecord, ...]:
    """Describe each tensor of a module, sorted by name."""
    return describe_tensors(named_tensors(module))


def describe_tensors(tensors: Iterable[NamedTensor]) -> tuple[TensorRecord, ...]:
    """Describe each tensor, sorted by name."""
    records = (
        TensorRecord(
            name=entry.name,
            kind=entry.kind,
            dtype=str(entry.tensor.dtype).removeprefix("torch."),
            shape=tuple(entry.tensor.shape),
            sha256=sha256_bytes(tensor_bytes(entry.tensor)),
        )
        for entry in tensors
    )
    return tuple(sorted(records, key=lambda record: record.name))


def state_digest(module: nn.Module) -> str:
    """SHA-256 of everything numeric that a module holds; independent of its device."""
    return records_digest(tensor_records(module))


def tensor_bytes(tensor: Tensor) -> bytes:
    """The elements in row-major order, bit by bit (NaNs keep their payload)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _iterate(module: nn.Module, prefix: str) -> Iterator[NamedTensor]:
    for path, child in module.named_modules(prefix=prefix):
        lead = f"{path}." if path else ""
        for name, parameter in own_parameters(child).items():
            if parameter is not None:
                yield NamedTensor(lead + name, "parameter", parameter)
        for name, buffer in own_buffers(child).items():
            if buffer is not None:
                yield NamedTensor(lead + name, "buffer", buffer)
        for name, value in vars(child).items():
            if name not in REGISTERS:
                yield from _plain_tensors(value, lead + name, set())


def _plain_tensors(value: object, name: str, parents: set[int]) -> Iterator[NamedTensor]:
    if isinstance(value, Tensor):
        yield NamedTensor(name, "attribute", value)
        return
    if id(value) in parents:
        return
    if isinstance(value, dict):
        items: Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return
    for key, item in items:
        yield from _plain_tensors(item, f"{name}[{key!r}]", parents | {id(value)})
