"""Preprocessing inside the graph: the same logits from pixels, and from images of any size."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from PIL import Image

from ecd_deploy.data import Normalisation
from ecd_deploy.data.resize import Framing
from ecd_deploy.errors import RecipeError
from ecd_deploy.exporters.preprocessing import FRAMING_BOUND, on_canvas, put_preprocessing_inside, to_pixels
from ecd_deploy.measure.scores.scored import softmax
from ecd_deploy.recipe.export import ExportConfig, Int8Config
from ecd_deploy.recipe.recipe import load_recipe
from ecd_deploy.recipe.sides import both_sides
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


@pytest.mark.parametrize(
    "name", ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnx-int8", "onnx-fp16", "ort"))]
)
def test_images_of_any_size_are_framed_inside(student: SplitStudent, name: str) -> None:
    metadata = make_metadata().model_copy(update={"mean": MEAN, "std": STD, "resize": 11})
    context = make_context(Normalisation(MEAN, STD))
    config = ExportConfig(preprocessing="full", int8=Int8Config(count=32))
    written = export_format(name, config, student, metadata, context)
    exporter, data = written.exporter, written.data
    assert exporter.read_metadata(data).preprocessing == "full"
    pixels = present(context.validation).images[:9]
    normalised = context.normalisation.apply(pixels)
    with torch.no_grad():
        expected = student.module(torch.from_numpy(normalised)).numpy()
    atol = 5e-6 if exporter.budget is None else exporter.budget.relative * np.abs(expected).max()
    np.testing.assert_allclose(exporter.open(data, fresh_student)(normalised), expected, rtol=0, atol=atol)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape[1:]) for value in session.get_inputs()] == [("images", ["height", "width", 1])]
    photos = np.random.default_rng(0).integers(0, 256, (3, 1, 40, 23), dtype=np.uint8)
    logits, probabilities = session.run(None, {"images": photos.transpose(0, 2, 3, 1)})
    framed = context.normalisation.apply(Framing.of(8, 11).apply_all(photos))
    np.testing.assert_allclose(logits, exporter.open(data, fresh_student)(framed), rtol=0, atol=0.05)
    np.testing.assert_allclose(probabilities, softmax(logits), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "resize"),
    [(224, 256), (224, 224), (32, 40), (8, 11), ((160, 224), (160, 224)), ((40, 24), (44, 32)), ((32, 40), 48)],
)
@pytest.mark.parametrize("noise", [False, True], ids=["smooth", "noise"])
def test_framing_is_pillows_within_the_stated_bound(
    size: int | tuple[int, int], resize: int | tuple[int, int], noise: bool
) -> None:
    sides = both_sides(size)
    metadata = make_metadata().model_copy(
        update={
            "input_shape": (3, *sides), "resize": resize, "mean": (0.0,) * 3, "std": (1 / 255,) * 3,
            "preprocessing": "full",
        }
    )  # fmt: skip
    free: list[str | int | None] = ["batch", 3, *sides]
    fixed = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["logits"])],
        "framing",
        [helper.make_tensor_value_info("images", fixed, free)],
        [helper.make_tensor_value_info("logits", fixed, free)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    put_preprocessing_inside(model, metadata)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for height, width in ((480, 640), (333, 500), (91, 37), (224, 224), (1000, 700), (31, 33), (1, 7), (256, 2000)):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if not noise:  # neighbours resemble each other, as in a photograph
            small = Image.fromarray(pixels[: -(-height // 16), : -(-width // 16)])
            pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
        expected = np.asarray(Framing.of(size, resize).apply(Image.fromarray(pixels)), dtype=np.float32)
        (found,) = session.run(["logits"], {"images": pixels[np.newaxis]})
        difference = np.abs(found[0].transpose(1, 2, 0) - expected)
        assert difference.max() <= (FRAMING_BOUND.largest if noise else FRAMING_BOUND.usual) + 1e-3
        assert difference.mean() <= (FRAMING_BOUND.largest_average if noise else FRAMING_BOUND.average)


def test_framing_takes_the_side_to_which_halves_are_rounded() -> None:
    metadata = make_metadata().model_copy(update={"preprocessing": "full"})
    squares: list[tuple[int | tuple[int, int], int | tuple[int, int]]] = [(8, resize) for resize in range(8, 14)]
    for size, resize in (*squares, ((8, 5), (11, 8)), ((8, 5), 9)):
        described = metadata.model_copy(update={"resize": resize})
        framed = np.random.default_rng(0).integers(0, 256, (2, *both_sides(size), 1), dtype=np.uint8)
        canvas = on_canvas(framed, described)
        assert canvas.shape == (2, *both_sides(resize), 1)
        cut = Framing.of(size, resize).apply_all(canvas.transpose(0, 3, 1, 2))
        assert np.array_equal(cut.transpose(0, 2, 3, 1), framed)


def test_what_cannot_take_any_size_is_refused_by_its_name() -> None:
    with pytest.raises(RecipeError, match="'full' takes images of any size, and onnx-static of one size"):
        ExportConfig(preprocessing="full", formats=("onnx", "onnx-static"))
    with pytest.raises(RecipeError, match="image_size"):
        load_recipe("digits", ("export.preprocessing=full",))


def test_every_pixel_value_survives_normalisation() -> None:
    metadata = make_metadata().model_copy(
        update={"input_shape": (3, 16, 16), "mean": (0.49, 0.1, 0.9), "std": (0.2,) * 3}
    )
    pixels = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (1, 3, 1, 1))
    normalised = Normalisation(metadata.mean, metadata.std).apply(pixels)
    assert np.array_equal(to_pixels(normalised, metadata), pixels.transpose(0, 2, 3, 1))
