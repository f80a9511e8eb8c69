from __future__ import annotations

import resource
import time
import zipfile
from io import BytesIO

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from ecd_deploy.errors import ArtefactError, ExportError
from ecd_deploy.measure.latency.measurement import measure_onnx
from ecd_deploy.measure.predictors.untrusted import Limits, check_untrusted
from ecd_deploy.recipe.profile import ProfileConfig


def model(nodes: list[onnx.NodeProto], initialisers: list[onnx.TensorProto]) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [images], [logits], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def linear(weight: onnx.TensorProto) -> onnx.ModelProto:
    return model([helper.make_node("MatMul", ["images", "weight"], ["logits"])], [weight])


def weights(value: float = 1.0) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full((4, 2), value, np.float32), "weight")


def endless() -> bytes:
    """A Loop without a count, whose condition stays true."""
    kept = helper.make_tensor_value_info("kept", TensorProto.BOOL, [])
    sum_in, sum_out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["kept"]), helper.make_node("Relu", ["x"], ["y"])],
        "body",
        [count, going, sum_in],
        [kept, sum_out],
    )
    true = numpy_helper.from_array(np.array(True), "true")
    loop = helper.make_node("Loop", ["", "true", "images"], ["logits"], body=body)
    data: bytes = model([loop], [true]).SerializeToString()
    return data


def endless_where(operator: str) -> bytes:
    """A Loop that goes on while the sum of its input is above (or below) zero: it ends at once on zeros."""
    kept, going = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("kept", "going"))
    sum_in, sum_out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["kept"]), helper.make_node("Relu", ["x"], ["y"])],
        "body",
        [count, going, sum_in],
        [kept, sum_out],
    )
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        helper.make_node(operator, ["sum", "zero"], ["endless"]),
        helper.make_node("Loop", ["", "endless", "images"], ["logits"], body=body),
    ]
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    data: bytes = model(nodes, [zero]).SerializeToString()
    return data


def greedy_on_light() -> bytes:
    """An output of 40 GB for an image whose pixels are 1, and of nothing for one of zeros."""
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "many"], ["size"]),
        helper.make_node("Relu", ["size"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "one"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["logits"]),
    ]
    many = numpy_helper.from_array(np.array(1e10, np.float32), "many")
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    data: bytes = model(nodes, [many, one]).SerializeToString()
    return data


def greedy() -> bytes:
    """An output of 16 GB."""
    shape = numpy_helper.from_array(np.array([4_000_000_000], np.int64), "shape")
    data: bytes = model([helper.make_node("ConstantOfShape", ["shape"], ["logits"])], [shape]).SerializeToString()
    return data


def outside() -> bytes:
    tensor = weights()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/hostname")
    data: bytes = linear(tensor).SerializeToString()
    return data


def test_an_honest_model_and_honest_tensors_pass() -> None:
    check_untrusted(linear(weights()).SerializeToString(), "honest.onnx")
    check_untrusted(safetensors.numpy.save({"w": np.ones(3, np.float32)}), "honest.safetensors")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (outside(), "keeps weight in another file"),
        (linear(weights(float("nan"))).SerializeToString(), "not finite"),
        (linear(weights()).SerializeToString()[:-20], "cannot be used"),
        (b"\x08\x0a" + bytes(100), "cannot be used"),
    ],
)
def test_what_cannot_be_run_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        check_untrusted(data, "foreign.onnx")


def test_an_endless_loop_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(ArtefactError, match=r"does not finish within 5 s|makes its process exit"):
        check_untrusted(endless(), "endless.onnx", Limits(seconds=5))
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("operator", ["Greater", "Less"])
def test_a_loop_that_ends_on_zeros_alone_is_ended(operator: str) -> None:
    with pytest.raises(ArtefactError, match=r"does not finish within 5 s|ends its process"):
        check_untrusted(endless_where(operator), "endless.onnx", Limits(seconds=5))


@pytest.mark.parametrize("data", [greedy(), greedy_on_light()])
def test_a_greedy_model_is_ended(data: bytes) -> None:
    with pytest.raises(ArtefactError, match=r"greedy\.onnx cannot be used"):
        check_untrusted(data, "greedy.onnx")


@pytest.mark.parametrize(
    ("data", "limits"),
    [(endless(), Limits(seconds=3)), (greedy_on_light(), Limits()), (greedy(), Limits())],
)
def test_its_latency_is_measured_under_limits(data: bytes, limits: Limits) -> None:
    quick = ProfileConfig(min_seconds=0.05, min_samples=20, warmup_seconds=0.0)
    with pytest.raises(ExportError, match="cannot run the model"):
        measure_onnx(data, quick.model_copy(update={"max_seconds": 1.0}), limits=limits)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert used < Limits().memory_bytes // 1000


def test_an_honest_model_is_measured_under_limits() -> None:
    quick = ProfileConfig(min_seconds=0.05, min_samples=20, warmup_seconds=0.0)
    assert not measure_onnx(linear(weights()).SerializeToString(), quick, limits=Limits()).constrained


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.FLOAT])
def test_images_of_each_type_are_tried(kind: int) -> None:
    images = helper.make_tensor_value_info("images", kind, ["batch", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["images"], ["logits"], to=TensorProto.FLOAT)], "graph", [images], [logits]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    check_untrusted(made.SerializeToString(), "honest.onnx")


def test_what_could_run_code_is_refused_unopened() -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", b"cposix\nsystem\n(S'exit 1'\ntR.")
    for data in (archive.getvalue(), b"\x80\x02cposix\nsystem\n.", b"", b"ORTM"):
        with pytest.raises(ArtefactError, match=r"only if ONNX, \.ort or safetensors"):
            check_untrusted(data, "student.pt")
    with pytest.raises(ArtefactError, match="is not a safetensors file"):
        check_untrusted(b"\xff" * 8 + b"{}", "student.safetensors")
