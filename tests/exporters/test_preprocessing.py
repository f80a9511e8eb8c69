"""Normalisation inside the graph: the same logits from pixels."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from ecd_deploy.data import Normalisation
from ecd_deploy.exporters.preprocessing import to_pixels
from ecd_deploy.recipe.export import ExportConfig, Int8Config
from ecd_deploy.split import SplitStudent
from tests.exporters.conftest import export_format, fresh_student, make_context, make_metadata
from tests.small import present

MEAN, STD = (0.3058,), (0.3761,)


@pytest.mark.parametrize("name", ["onnx", "onnx-static", "onnx-int8", "onnx-fp16", "ort"])
def test_pixels_give_the_logits_of_normalised_images(student: SplitStudent, name: str) -> None:
    metadata = make_metadata().model_copy(update={"mean": MEAN, "std": STD})
    context = make_context(Normalisation(MEAN, STD))
    config = ExportConfig(preprocessing="inside", int8=Int8Config(count=32))
    written = export_format(name, config, student, metadata, context)
    exporter, data = written.exporter, written.data
    assert exporter.read_metadata(data).preprocessing == "inside"
    pixels = present(context.validation).images[:9]
    normalised = context.normalisation.apply(pixels)
    with torch.no_grad():
        expected = student.module(torch.from_numpy(normalised)).numpy()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    assert (entry.name, entry.type, entry.shape[1:]) == ("images", "tensor(uint8)", [8, 8, 1])
    channels_last = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    alone = np.concatenate([session.run(["logits"], {"images": channels_last[i : i + 1]})[0] for i in range(9)])
    atol = 5e-6 if exporter.budget is None else exporter.budget.relative * np.abs(expected).max()
    np.testing.assert_allclose(alone, expected, rtol=0, atol=atol)
    np.testing.assert_allclose(exporter.open(data, fresh_student)(normalised), alone, rtol=0, atol=2e-6)


def test_every_pixel_value_survives_normalisation() -> None:
    metadata = make_metadata().model_copy(
        update={"input_shape": (3, 16, 16), "mean": (0.49, 0.1, 0.9), "std": (0.2,) * 3}
    )
    pixels = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (1, 3, 1, 1))
    normalised = Normalisation(metadata.mean, metadata.std).apply(pixels)
    assert np.array_equal(to_pixels(normalised, metadata), pixels.transpose(0, 2, 3, 1))
