from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.data import ImageTensors, balanced_subset, normalise
from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ExportInput
from ecd_deploy.exporters.onnx.int8 import Int8OnnxExporter
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.export import ExportConfig, Int8Config
from ecd_deploy.split import split_student
from tests.exporters.conftest import Exported, export_format, fresh_student, make_context, make_metadata
from tests.small import digit_images, present


def quantised(from_onnx: ExportInput, **choices: object) -> onnx.ModelProto:
    config = Int8Config.model_validate({"count": 32, **choices})
    return onnx.load_model_from_string(Int8OnnxExporter(config).export(from_onnx))


def weight_types(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}


def zero_point_types(model: onnx.ModelProto) -> set[int]:
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {types[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}


def largest_weight(model: onnx.ModelProto) -> int:
    return max(
        int(np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max())
        for tensor in model.graph.initializer
        if len(tensor.dims) == 4
    )


@pytest.mark.parametrize("quant_format", ["qoperator", "qdq"])
@pytest.mark.parametrize(("target", "activations"), [("x86", onnx.TensorProto.UINT8), ("arm", onnx.TensorProto.INT8)])
def test_types_are_those_of_the_target(
    from_onnx: ExportInput, quant_format: str, target: str, activations: int
) -> None:
    model = quantised(from_onnx, quant_format=quant_format, target=target)
    operators = {node.op_type for node in model.graph.node}
    assert ("QLinearConv" in operators) == (quant_format == "qoperator")
    assert weight_types(model) == {onnx.TensorProto.INT8}
    assert zero_point_types(model) == {activations}


def test_without_vnni_the_weights_take_seven_bits(from_onnx: ExportInput) -> None:
    assert largest_weight(quantised(from_onnx)) > 64
    assert largest_weight(quantised(from_onnx, vnni=False)) <= 64


@pytest.mark.parametrize("count", [1, 32, 33, 50, 61, 64])
@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_every_method_calibrates_on_any_count(
    from_onnx: ExportInput, capfd: pytest.CaptureFixture[str], method: str, count: int
) -> None:
    exporter = Int8OnnxExporter(Int8Config.model_validate({"method": method, "count": count}))
    record = exporter.read_metadata(exporter.export(from_onnx)).quantisation
    assert present(record).calibration_images == count
    assert capfd.readouterr() == ("", "")  # onnxruntime prints how far its histograms are


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_every_method_keeps_the_classes(from_onnx: ExportInput, method: str) -> None:
    exporter = Int8OnnxExporter(Int8Config.model_validate({"method": method}))
    images = digit_images(128)
    found = exporter.open(exporter.export(from_onnx), fresh_student)(images.numpy())
    expected = from_onnx.student.module(images).numpy()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


def test_the_calibration_images_are_recorded(artefacts: dict[str, Exported]) -> None:
    record = artefacts["onnx-int8"].exporter.read_metadata(artefacts["onnx-int8"].data).quantisation
    context = make_context()
    indices = balanced_subset(context.train.labels, 200, seed=0)
    assert record is not None
    assert record.calibration_images == len(indices) == len(context.train)
    assert record.calibration_indices_sha256 == sha256_bytes(json.dumps(indices.tolist()).encode())
    assert record.calibration_pixels_sha256 == sha256_bytes(context.train.images[indices].tobytes())


def test_other_calibration_images_give_another_digest(from_onnx: ExportInput) -> None:
    exporter = Int8OnnxExporter(Int8Config(count=16))
    context = make_context()
    first, second = (
        exporter.read_metadata(exporter.export(replace(from_onnx, context=replace(context, seed=seed)))).quantisation
        for seed in (0, 1)
    )
    assert first is not None
    assert second is not None
    assert first.calibration_indices_sha256 != second.calibration_indices_sha256


def test_without_validation_images_all_is_quantised_and_nothing_claimed(from_onnx: ExportInput) -> None:
    exporter = Int8OnnxExporter(Int8Config(count=32))
    context = make_context()
    data = exporter.export(replace(from_onnx, context=replace(context, validation=None, max_drop=0.0)))
    record = exporter.read_metadata(data).quantisation
    assert record is not None
    assert record.validation_images == 0
    assert record.float_nodes == ()
    assert (record.float_top1, record.full_int8_top1, record.top1, record.max_drop) == (None, None, None, None)
    as_much_as_there_is = replace(context, max_drop=1.0)
    watched = exporter.export(replace(from_onnx, context=as_much_as_there_is))
    models = [onnx.load_model_from_string(content) for content in (data, watched)]
    assert models[0].graph == models[1].graph


def test_without_images_it_is_refused(from_onnx: ExportInput) -> None:
    with pytest.raises(ExportError, match="calibrated on training images, and none were given"):
        Int8OnnxExporter().export(replace(from_onnx, context=None))


class Fragile(nn.Module):
    """Reads the class off the image, but by way of values of which one is thousands of times as large."""

    def __init__(self, prototypes: Tensor) -> None:
        super().__init__()
        self.spread = nn.Conv2d(1, 2, 1, bias=True)
        self.gather = nn.Conv2d(2, 1, 1, bias=False)
        self.fc = nn.Linear(64, 10)
        with torch.no_grad():
            self.spread.weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
            self.spread.bias.copy_(torch.tensor([0.0, 5000.0]))  # type: ignore[union-attr]
            self.gather.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
            self.fc.weight.copy_(prototypes - prototypes.mean(dim=0))
            self.fc.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.gather(self.spread(images)).flatten(1))
        return logits


def test_layers_that_hurt_go_back_to_float_until_the_margin_is_kept() -> None:
    context = make_context()
    train = ImageTensors.of(context.train)
    images = normalise(train.images, context.normalisation).flatten(1)
    prototypes = torch.stack([images[train.labels == label].mean(dim=0) for label in range(10)])
    fragile = split_student(PlainModel(Fragile(prototypes)), digit_images(4))
    config = ExportConfig(int8=Int8Config(max_drop=0.02))
    written = export_format("onnx-int8", config, fragile, make_metadata(), context)
    record = written.exporter.read_metadata(written.data).quantisation
    assert record is not None
    before = present(record.float_top1)
    assert before > 0.6
    assert present(record.full_int8_top1) < before - 0.2
    assert present(record.top1) >= before - 0.02
    assert record.float_nodes
    assert not any("gemm" in node.lower() for node in record.float_nodes)
