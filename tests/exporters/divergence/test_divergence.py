"""A fault planted in one layer of an artefact is found by name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ecd_deploy.exporters.divergence.search import first_divergence
from tests.exporters.conftest import Exported
from tests.small import digit_images


def planted(data: bytes, fragment: str, factor: float) -> bytes:
    """Scale one tensor of the artefact."""
    model = onnx.load_model_from_string(data)
    (tensor,) = (entry for entry in model.graph.initializer if entry.name == fragment)
    values = numpy_helper.to_array(tensor) * np.array(factor)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(numpy_helper.to_array(tensor).dtype), tensor.name))
    changed: bytes = model.SerializeToString()
    return changed


@pytest.mark.parametrize(
    ("name", "tensor", "limit"),
    [
        ("onnx", "layer2.0.conv1.weight", 1e-4),
        ("onnx-static", "layer2.0.conv1.weight_bias", 1e-4),
        ("onnx-fp16", "layer2.0.conv1.weight", 0.02),
        ("onnx-int8", "layer2.0.conv1.weight_scale", 0.3),
    ],
)
def test_the_layer_is_named(artefacts: dict[str, Exported], name: str, tensor: str, limit: float) -> None:
    exported, images = artefacts[name], digit_images(4).numpy()
    assert first_divergence(exported.data, exported.student, images, images, limit) is None
    factor = 8.0 if "bias" in tensor else 3.0
    found = first_divergence(planted(exported.data, tensor, factor), exported.student, images, images, limit)
    assert found is not None
    assert found.operator in {"Conv", "QLinearConv"}
    assert found.module.startswith("layer2.0.")
    assert found.relative_error is not None
    assert found.relative_error > limit
    assert found.nodes_compared > 4


def test_a_value_that_is_not_finite_departs(artefacts: dict[str, Exported]) -> None:
    exported, images = artefacts["onnx"], digit_images(4).numpy()
    found = first_divergence(planted(exported.data, "fc.weight", np.nan), exported.student, images, images, 1e-4)
    assert found is not None
    assert (found.operator, found.module, found.relative_error) == ("Gemm", "fc", None)
