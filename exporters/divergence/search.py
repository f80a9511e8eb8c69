"""Where an ONNX artefact leaves its student: the first node whose values are not the PyTorch module's.

torch.onnx names the values of a graph after those of the decomposed torch.export program, and quantisation and
float16 keep the names; so both are run, all intermediate values are looked at, and they are compared by name.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch.fx import Interpreter, Node

from ecd_deploy.compat.torch import innermost_module
from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.divergence.result import Divergence
from ecd_deploy.exporters.files.metadata import INPUT_NAME, OUTPUT_NAME
from ecd_deploy.exporters.onnx.format import parse_model
from ecd_deploy.exporters.onnx.session import session_options
from ecd_deploy.quiet import library_quiet
from ecd_deploy.split import SplitStudent

_Values = NDArray[np.float32]

# Where each integer operator has the scale of its output; the zero point is the next input.
_SCALE_INPUT = {"QuantizeLinear": 1, "QLinearConv": 6, "QLinearAdd": 6, "QLinearMatMul": 6, "QGemm": 7}
_QUANTISED = "_quantized"


def first_divergence(
    data: bytes, student: SplitStudent, given: NDArray[np.float32] | NDArray[np.uint8], images: _Values, limit: float
) -> Divergence | None:
    """Compare every intermediate value that both sides name.

    Args:
        data: an ONNX artefact.
        student: it was made from.
        given: what the artefact takes for `images`: the same, or pixels (n, H, W, C).
        images: normalised, (n, C, H, W).
        limit: largest relative error of a value.

    Returns:
        None where no value differs by more than the limit.

    Raises:
        ExportError: the artefact cannot be run node by node.
    """
    expected, modules = _student_values(student, images)
    model = parse_model(data, "onnx")
    found = _artefact_values(model, given)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    compared = 0
    for node in model.graph.node:
        for output in node.output:
            name = output.removesuffix(_QUANTISED)
            if name not in expected or output not in found:
                continue
            values = _dequantised(node, found[output], constants)
            if values is None:
                continue
            compared += 1
            error = _relative_error(expected[name], values)
            if error is not None and node.op_type in _SCALE_INPUT:  # a Relu that follows is often fused into it
                rectified = _relative_error(np.maximum(expected[name], 0), values)
                error = error if rectified is None else min(error, rectified)
            if error is None or error > limit:
                return Divergence(
                    node=node.name,
                    operator=node.op_type,
                    module=modules[name],
                    relative_error=error,
                    nodes_compared=compared,
                )
    return None


class _Recorder(Interpreter):
    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, _Values] = {}
        self.modules: dict[str, str] = {}

    def run_node(self, n: Node) -> object:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and n.op == "call_function" and result.is_floating_point():
            self.values[n.name] = result.detach().float().numpy().copy()
            self.modules[n.name] = _module_path(n)
        return result


def _student_values(student: SplitStudent, images: _Values) -> tuple[dict[str, _Values], dict[str, str]]:
    example = torch.zeros(2, *student.example_shape)
    with library_quiet(), torch.no_grad():
        program = torch.export.export(
            student.module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        ).run_decompositions()
        state = {**dict(program.named_parameters()), **dict(program.named_buffers()), **program.constants}
        recorder = _Recorder(program.graph_module)
        inputs = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target}
        placeholders = [node.name for node in program.graph.nodes if node.op == "placeholder"]
        arguments = [state[inputs[name]] if name in inputs else torch.from_numpy(images) for name in placeholders]
        (logits,) = recorder.run(*arguments)
    recorder.values[OUTPUT_NAME] = logits.numpy()
    recorder.modules[OUTPUT_NAME] = next(reversed(recorder.modules.values()))
    return recorder.values, recorder.modules


def _module_path(node: Node) -> str:
    source: object = node
    if node.target is not None and "getitem" in node.name and node.args:  # of the node that gave the tuple
        source = node.args[0]
    return innermost_module(source) if isinstance(source, Node) else ""


def _artefact_values(
    model: onnx.ModelProto, given: NDArray[np.float32] | NDArray[np.uint8]
) -> dict[str, NDArray[np.generic]]:
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    present = {value.name for value in opened.graph.output}
    opened.graph.output.extend(
        onnx.ValueInfoProto(name=output)
        for node in opened.graph.node
        for output in node.output
        if output and output not in present
    )
    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    fixed = opened.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    rows = [given[i : i + fixed] for i in range(0, len(given), fixed)] if fixed else [given]
    try:
        session = ort.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        parts = [session.run(names, {INPUT_NAME: row}) for row in rows]
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"the artefact cannot be run node by node: {error}") from error
    joined = {}
    for name, values in zip(names, zip(*parts, strict=True), strict=True):
        joined[name] = np.concatenate(values) if values[0].ndim else values[0]
    return joined


def _dequantised(
    node: onnx.NodeProto, values: NDArray[np.generic], constants: dict[str, NDArray[np.generic]]
) -> _Values | None:
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    index = _SCALE_INPUT.get(node.op_type)
    if index is None:
        return None
    scale, zero = constants[node.input[index]], constants[node.input[index + 1]]
    result: _Values = (values.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
    return result


def _relative_error(expected: _Values, found: _Values) -> float | None:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return None
    largest = float(np.abs(expected).max())
    difference = float(np.abs(expected.astype(np.float64) - found).max())
    return difference / largest if largest else difference
