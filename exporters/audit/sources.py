"""All that a file may hold of a student: its tensors, what is computed from them alone, and batch norm folded in.

The student's own `torch.export` graph is evaluated as far as no image is needed, in its own precision and in
float64; the folds are then computed in float64 from the operands of each batch norm in the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from ecd_deploy.compat.torch import schema_of, traced_value
from ecd_deploy.errors import SplitError, reraise_machine_fault
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split import SplitStudent
from ecd_deploy.split.exported import exported_program, graph_inputs
from ecd_deploy.split.identity import computation
from ecd_deploy.split.inventory import named_tensors

_TRANSPOSED = "transpose"
_HANDING_ON = (torch.ops.aten.dropout.default, torch.ops.aten.clone.default, torch.ops.aten.contiguous.default)
# Filled with a number: of the tensor that they are asked for, they take the type and nothing else.
_FILLING = (torch.ops.aten.new_zeros.default, torch.ops.aten.new_ones.default, torch.ops.aten.new_full.default)
_Arguments = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Source:
    """What a tensor of a file may be.

    Attributes:
        name: of the student's tensor, or the expression.
        exact: in the student's own precision; None for a fold.
        value: in float64.
        magnitude: the sum of the absolute terms that `value` was computed from: rounding is measured against it.
    """

    name: str
    exact: NDArray[Any] | None
    value: NDArray[np.float64]
    magnitude: NDArray[np.float64]


@dataclass(frozen=True)
class StudentSources:
    """The sources of one student.

    Attributes:
        metadata: that were given to the exporters.
        sources: what a tensor of a file may be.
        numbers: that its graph spells out; None if it has no graph.
    """

    metadata: ArtefactMetadata
    sources: tuple[Source, ...]
    numbers: tuple[float, ...] | None
    by_size: Mapping[int, tuple[Source, ...]] = field(init=False)
    by_digest: Mapping[str, str] = field(init=False)
    """Names of the exact ones by the SHA-256 of their bytes."""

    def __post_init__(self) -> None:
        sizes: dict[int, tuple[Source, ...]] = {}
        for source in self.sources:
            sizes[source.value.size] = (*sizes.get(source.value.size, ()), source)
        object.__setattr__(self, "by_size", sizes)
        exact = ((source.exact, source.name) for source in reversed(self.sources))
        digests = {sha256_bytes(values.tobytes()): name for values, name in exact if values is not None}
        object.__setattr__(self, "by_digest", digests)


def student_sources(student: SplitStudent, metadata: ArtefactMetadata) -> StudentSources:
    """Collect the sources of a student, and the constants of the preprocessing that the metadata describe.

    Args:
        student: that is exported.
        metadata: that were given to the exporters.
    """
    found = [_exact(entry.name, entry.tensor) for entry in named_tensors(student.module)]
    std, mean = np.array(metadata.std, dtype=np.float64), np.array(metadata.mean, dtype=np.float64)
    found += [_plain("1 / (255 std)", 1 / (255 * std)), _plain("-mean / std", -mean / std)]
    # a graph that cannot be evaluated gives no folded constants: a file's are then left unexplained
    numbers: tuple[float, ...] | None = None
    with suppress(SplitError):
        program = _program(student)
        numbers = computation(program, student.module).numbers
        with torch.no_grad():
            found += _Evaluation(program, student).sources()
    return StudentSources(metadata, tuple(source for source in found if source.value.size), numbers)


def _program(student: SplitStudent) -> ExportedProgram:
    try:
        return student.program
    except SplitError:  # the formats that take any number of images cannot express it; others may
        return exported_program(student.module, torch.zeros(2, *student.example_shape))


class _Evaluation:
    """The nodes of an exported graph that need no image, and what they come to."""

    def __init__(self, program: ExportedProgram, student: SplitStudent) -> None:
        self._nodes = list(program.graph.nodes)
        self._exact: dict[Node, Any] = {}
        self._double: dict[Node, Any] = {}
        self._labels: dict[Node, str] = {}
        own = {id(entry.tensor) for entry in named_tensors(student.module)}
        self._storages = {entry.tensor.untyped_storage().data_ptr() for entry in named_tensors(student.module)}
        for node, found in graph_inputs(program).items():
            if found.tensor is not None and (id(found.tensor) in own or found.literal):
                self._set(node, found.tensor.detach(), found.name)

    def sources(self) -> Iterator[Source]:
        for node in self._nodes:
            if node.op == "call_function":
                self._evaluate(node)
                arguments = self._arguments(node)
                if "running_mean" in arguments:
                    yield from self._folds(arguments)
                elif node.target is torch.ops.aten.mul.Tensor:
                    yield from self._scalings(arguments)
        for node, value in self._exact.items():
            if node.op == "call_function" and isinstance(value, Tensor):
                double = self._double.get(node, value.double() if value.is_floating_point() else value)
                yield _exact(self._labels[node], value, double)

    def _set(self, node: Node, value: Tensor, label: str) -> None:
        self._exact[node] = value
        self._double[node] = value.double() if value.is_floating_point() else value
        self._labels[node] = label

    def _evaluate(self, node: Node) -> None:
        if node.target in _FILLING and node.args[0] not in self._exact:
            self._fill(node)
            return
        if self._writes_to_the_student(node):
            return
        if not all(source in self._exact for source in node.all_input_nodes):
            return
        if node.target is operator.getitem or not callable(node.target):
            return
        target = node.target
        try:
            self._exact[node] = target(*_filled(node.args, self._exact), **_filled(node.kwargs, self._exact))
        except Exception as error:  # noqa: BLE001 - it wants an image's size, or is a subgraph
            reraise_machine_fault(error)
            return
        sources = [self._labels[source] for source in node.all_input_nodes]
        self._labels[node] = f"{str(target).removeprefix('aten.').partition('.')[0]}({', '.join(sources[:3])})"
        try:
            self._double[node] = target(*_filled(node.args, self._double), **_filled(node.kwargs, self._double))
        except Exception as error:  # noqa: BLE001 - without float64, its own precision is the reference
            reraise_machine_fault(error)
            self._double[node] = self._exact[node]

    def _fill(self, node: Node) -> None:
        like, *arguments = node.args
        value = traced_value(like) if isinstance(like, Node) else None
        if isinstance(value, Tensor) and callable(node.target) and not any(isinstance(a, Node) for a in arguments):
            own = torch.empty(0, dtype=value.dtype)
            self._set(node, node.target(own, *arguments, **node.kwargs), str(node.target).removeprefix("aten."))

    def _writes_to_the_student(self, node: Node) -> bool:
        schema = schema_of(node.target)
        if schema is None or not schema.is_mutable:
            return False
        return any(
            isinstance(value := self._exact.get(source), Tensor)
            and value.untyped_storage().data_ptr() in self._storages
            for source in node.all_input_nodes
        )

    def _arguments(self, node: Node) -> _Arguments:
        schema = schema_of(node.target)
        if schema is None:
            return {}
        names = [argument.name for argument in schema.arguments]
        defaults = {
            argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()
        }
        return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}

    def _folds(self, norm: _Arguments) -> Iterator[Source]:
        operands = [self._value(norm.get(key)) for key in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, gamma, beta = operands
        if mean is None or variance is None:
            return
        gamma = np.ones_like(mean) if gamma is None else gamma
        beta = np.zeros_like(mean) if beta is None else beta
        scale = gamma / np.sqrt(variance + norm["eps"])
        label = self._labels[norm["running_mean"]].removesuffix(".running_mean")
        yield _plain(f"scale of {label}", scale)
        yield _plain(f"shift of {label}", beta - mean * scale, np.abs(beta) + np.abs(mean * scale))
        yield from self._into_layer(norm["input"], label, scale, mean, beta)

    def _scalings(self, product: _Arguments) -> Iterator[Source]:
        """A layer's output times constants, one a channel: ConvNeXt's layer scale."""
        for factor, before in ((product["other"], product["self"]), (product["self"], product["other"])):
            scale = self._value(factor)
            if scale is not None and isinstance(before, Node):
                zeros = np.zeros(scale.size)
                yield from self._into_layer(before, self._labels[factor], scale.reshape(-1), zeros, zeros)

    def _into_layer(
        self,
        output: object,
        label: str,
        scale: NDArray[np.float64],
        mean: NDArray[np.float64],
        beta: NDArray[np.float64],
    ) -> Iterator[Source]:
        """Weight and bias of the layer before for `(its output - mean) * scale + beta`, channel by channel."""
        before = self._unchanged(output)
        layer = self._arguments(before) if isinstance(before, Node) else {}
        weight = self._value(layer.get("weight"))
        if weight is None or not isinstance(before, Node):
            return
        bias = self._value(layer.get("bias"))
        bias = np.zeros_like(mean) if bias is None else bias
        axis = 1 if _TRANSPOSED in str(before.target) or layer.get("transposed") else 0
        if weight.shape[axis] != scale.size:
            return
        shape = [1] * weight.ndim
        shape[axis] = scale.size
        name = f"{self._labels[layer['weight']]} with {label}"
        yield _plain(f"weight of {name}", weight * scale.reshape(shape))
        terms = np.abs(bias * scale) + np.abs(mean * scale) + np.abs(beta)
        yield _plain(f"bias of {name}", (bias - mean) * scale + beta, terms)

    def _unchanged(self, node: object) -> object:
        """The node of which this one only hands on the values: dropout is none in evaluation."""
        while isinstance(node, Node) and node.target in _HANDING_ON and not self._arguments(node).get("train"):
            node = node.args[0]
        return node

    def _value(self, node: object) -> NDArray[np.float64] | None:
        value = self._double.get(node) if isinstance(node, Node) else None
        return value.numpy() if isinstance(value, Tensor) and value.is_floating_point() else None


def _filled(arguments: Any, values: Mapping[Node, Any]) -> Any:
    return torch.fx.node.map_arg(arguments, lambda node: values[node])


def _exact(name: str, tensor: Tensor, double: Tensor | None = None) -> Source:
    tensor = tensor.detach().cpu().contiguous()
    exact = tensor.view(torch.int16).numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()
    value = (tensor if double is None else double.detach().cpu()).double().contiguous().numpy()
    # A sum over many terms is rounded against the largest of them; the result's own size stands in for it.
    size = np.abs(value) if double is None else np.maximum(np.abs(value), np.abs(value).max(initial=0.0))
    return Source(name, exact, value, size)


def _plain(name: str, value: NDArray[np.float64], magnitude: NDArray[np.float64] | None = None) -> Source:
    return Source(name, None, value, np.abs(value) if magnitude is None else magnitude)
