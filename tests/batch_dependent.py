"""ONNX students whose logits depend on the other images of the batch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import NodeProto, helper


def minus_the_mean_of_the_batch() -> tuple[NodeProto, ...]:
    return (
        helper.make_node("Constant", [], ["planted_axis"], value_ints=[0]),
        helper.make_node("ReduceMean", ["planted_own", "planted_axis"], ["planted_mean"]),
        helper.make_node("Sub", ["planted_own", "planted_mean"], ["logits"]),
    )


def other_in_a_batch_of(size: int) -> tuple[NodeProto, ...]:
    return (
        helper.make_node("Constant", [], ["planted_size"], value_ints=[size]),
        helper.make_node("Shape", ["planted_own"], ["planted_count"], end=1),
        helper.make_node("Equal", ["planted_count", "planted_size"], ["planted_equal"]),
        helper.make_node("Neg", ["planted_own"], ["planted_other"]),
        helper.make_node("Where", ["planted_equal", "planted_other", "planted_own"], ["logits"]),
    )


def plant(path: Path, nodes: Iterable[NodeProto]) -> None:
    """Let the nodes make a file's logits from those that it gave, under the name `planted_own`."""
    model = onnx.load(path)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == "logits":
                    names[index] = "planted_own"
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
