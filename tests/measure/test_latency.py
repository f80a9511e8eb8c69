from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from ecd_deploy.config import ProfileConfig
from ecd_deploy.errors import ExportError
from ecd_deploy.measure.latency import measure_onnx_latency


@pytest.fixture(scope="module")
def doubling_model() -> bytes:
    shape: list[str | int | None] = ["batch", 1, 4, 4]
    graph = helper.make_graph(
        [helper.make_node("Add", ["images", "images"], ["logits"])],
        "doubling",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_every_sample_is_kept_and_percentiles_are_ordered(doubling_model: bytes) -> None:
    config = ProfileConfig(min_seconds=0.05, min_samples=500, warmup_seconds=0.0)
    latency = measure_onnx_latency(doubling_model, (1, 4, 4), config)
    assert len(latency.samples_ms) >= 500
    values = [entry.value_ms for entry in latency.percentiles]
    assert None not in values
    assert values == sorted(value for value in values if value is not None)
    assert latency.at(0.9).upper_bound_ms is not None
    assert latency.load_ms > 0
    assert latency.first_run_ms > 0


def test_percentiles_without_enough_samples_are_not_given(doubling_model: bytes) -> None:
    config = ProfileConfig(min_seconds=1e-6, max_seconds=1e-6, min_samples=1, warmup_seconds=0.0)
    latency = measure_onnx_latency(doubling_model, (1, 4, 4), config)
    assert len(latency.samples_ms) == 1
    assert latency.at(0.99).value_ms is None
    assert latency.at(0.99).upper_bound_ms is None
    assert latency.at(0.99).samples_needed == 459


def test_a_broken_model_is_an_artefact_error() -> None:
    with pytest.raises(ExportError, match="onnxruntime cannot run"):
        measure_onnx_latency(b"not a model", (1, 4, 4), ProfileConfig())
