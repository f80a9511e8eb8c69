"""Time and arithmetic by layer: onnxruntime's fused operators back to the module whose weight they use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.records import Record

if TYPE_CHECKING:
    import onnx

    from ecd_deploy.measure.latency.measurement import Measurement

_FUSED_SUFFIX = "_nchwc"


class LayerCost(Record):
    """One layer, or the operators of one kind that have no weight."""

    name: str
    median_us: float
    """Sum of the median times of its operators."""
    macs: int


def layer_costs(model: bytes, measurement: Measurement) -> tuple[LayerCost, ...]:
    """Group a measurement's operators by layer, in the order in which they ran.

    A fused operator is named after the last value that it computes: from there the way leads back to the
    nearest operator with a weight, and the weight's name is the layer's.
    """
    import onnx

    graph = onnx.load_model_from_string(model).graph
    finder = _LayerFinder(graph)
    times: dict[str, float] = {}
    for operator in measurement.operators:
        layer = finder.layer(operator.name) or operator.kind
        times[layer] = times.get(layer, 0.0) + operator.median_us
    macs: dict[str, int] = {}
    for entry in measurement.graph_macs:
        layer = finder.layer(entry.name) or entry.name
        macs[layer] = macs.get(layer, 0) + entry.macs
    names = [*times, *(name for name in macs if name not in times)]
    return tuple(LayerCost(name=name, median_us=times.get(name, 0.0), macs=macs.get(name, 0)) for name in names)


class _LayerFinder:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) >= 2}
        self._by_name = {node.name: node for node in graph.node}
        self._by_output = {output: node for node in graph.node for output in node.output}

    def layer(self, operator: str) -> str | None:
        """The layer of an operator; None where it has no weight."""
        if operator in self._by_name:
            weight = self._weight(self._by_name[operator])
        else:
            weight = self._nearest_weight(operator.removesuffix(_FUSED_SUFFIX))
        return weight.removesuffix(".weight") if weight else None

    def _nearest_weight(self, value: str) -> str | None:
        waiting = [value]
        while waiting:
            node = self._by_output.get(waiting.pop(0))
            if node is None:
                continue
            weight = self._weight(node)
            if weight:
                return weight
            waiting += node.input
        return None

    def _weight(self, node: onnx.NodeProto) -> str | None:
        return next((name for name in node.input if name in self._weights), None)
