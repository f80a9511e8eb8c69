from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from ecd_deploy.compat.onnxruntime import half_precision, ort_session, table_position, table_slot


@pytest.fixture
def model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "weight")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["images", "weight"], ["hidden"], name="first"),
            helper.make_node("MatMul", ["hidden", "weight"], ["logits"], name="second"),
        ],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3))],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ort_bytes(model: onnx.ModelProto, folder: Path) -> bytes:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return (folder / "model.ort").read_bytes()


def test_a_ort_file_is_read_by_the_generated_schema(model: onnx.ModelProto, tmp_path: Path) -> None:
    session = ort_session(ort_bytes(model, tmp_path))
    graph = session.Model().Graph()
    names = {graph.Initializers(index).Name() for index in range(graph.InitializersLength())}
    assert b"weight" in names
    assert session.KernelTypeStrResolver().OpKernelTypeStrArgsLength() >= 1


def test_root_table_and_fields_of_a_ort_file_are_where_the_reader_says(model: onnx.ModelProto, tmp_path: Path) -> None:
    data = ort_bytes(model, tmp_path)
    session = ort_session(data)
    root = table_position(session)
    assert root == struct.unpack_from("<I", data)[0]
    # the first slot of the vtable is the version, a text whose length stands before it
    place = root + table_slot(session, 4)
    text = place + struct.unpack_from("<I", data, place)[0]
    length = struct.unpack_from("<I", data, text)[0]
    assert data[text + 4 : text + 4 + length] == session.OrtVersion()


def test_a_model_is_halved_but_for_its_ends_and_the_nodes_that_are_kept(model: onnx.ModelProto) -> None:
    halved = half_precision(model, keep=["first"])
    types = {entry.name: entry.type.tensor_type.elem_type for entry in (*halved.graph.input, *halved.graph.output)}
    assert types == {"images": TensorProto.FLOAT, "logits": TensorProto.FLOAT}
    assert {entry.data_type for entry in halved.graph.initializer} == {TensorProto.FLOAT16}
    (first,) = (node for node in halved.graph.node if node.name == "first")
    casts = {node.output[0]: node.attribute[0].i for node in halved.graph.node if node.op_type == "Cast"}
    assert casts[first.input[1]] == TensorProto.FLOAT
    session = ort.InferenceSession(halved.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    np.testing.assert_array_equal(session.run(None, {"images": images})[0], images)
