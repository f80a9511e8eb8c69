"""What the contract of exporters promises, asked of each format."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ArtefactMetadata, ExportInput, exporter_for
from ecd_deploy.recipe.export import ExportConfig
from ecd_deploy.split import SplitStudent, split_student, state_digest
from tests.exporters.conftest import FORMATS, Exported, export_format, fresh_student
from tests.small import digit_images

EXPORT_ELSEWHERE = """
import hashlib, json
from ecd_deploy.exporters import export_formats
from tests.exporters.conftest import FORMATS, make_config, make_context, make_metadata, make_student
exported = export_formats(FORMATS, make_config(), make_student(), make_metadata(), make_context())
print(json.dumps({written.exporter.format: hashlib.sha256(written.data).hexdigest() for written in exported}))
"""


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("kind", ["digits", "random"])
def test_logits_equal_those_of_the_module(exported: Exported, kind: str, count: int) -> None:
    noise = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))
    images = digit_images(count) if kind == "digits" else noise
    predictor = exported.exporter.open(exported.data, fresh_student, threads=1)
    with torch.no_grad():
        expected = exported.student.module(images).numpy()
    found = predictor(images.numpy())
    assert found.shape == (count, 10)
    assert found.dtype == np.float32
    budget = exported.exporter.budget
    atol = 2e-6 if budget is None else budget.relative * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    if budget is None or kind == "digits":
        assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_the_same_bytes_in_another_process_folder_and_hash_seed(artefacts: dict[str, Exported], tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "4711"}
    done = subprocess.run(
        [sys.executable, "-c", EXPORT_ELSEWHERE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    elsewhere = json.loads(done.stdout)
    assert elsewhere == {name: hashlib.sha256(artefacts[name].data).hexdigest() for name in FORMATS}


@pytest.mark.parametrize("name", ["safetensors", "torchscript", "onnx-int8", "onnx-fp16", "ort", "pt2"])
def test_the_same_bytes_twice_in_one_process(artefacts: dict[str, Exported], from_onnx: ExportInput, name: str) -> None:
    assert artefacts[name].exporter.export(from_onnx) == artefacts[name].data


def test_the_metadata_are_inside_with_the_students_digest(exported: Exported) -> None:
    found = exported.exporter.read_metadata(exported.data)
    digest = exported.student.proof.student_digest
    own = {name: getattr(found, name) for name in ("batch", "derived_from", "quantisation", "target")}
    assert found == exported.metadata.model_copy(update={"student_digest": digest, **own})


@pytest.mark.parametrize("name", ["onnx-static", "onnx-int8", "onnx-fp16", "ort"])
def test_what_is_derived_says_from_which_file(artefacts: dict[str, Exported], name: str) -> None:
    metadata = artefacts[name].exporter.read_metadata(artefacts[name].data)
    assert metadata.derived_from == hashlib.sha256(artefacts["onnx"].data).hexdigest()


def test_nothing_of_the_machine_or_the_teacher_is_in_the_bytes(exported: Exported) -> None:
    for trace in (Path.cwd(), Path.home(), Path(sys.prefix), Path(__file__).parents[2], "site-packages", "<eval_with"):
        assert f"{trace}".encode() not in exported.data
    for name in (b"teacher", b"connections", b"ECDModel"):
        assert name not in exported.data
    state = exported.student.module.state_dict()
    tensor_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert len(exported.data) < tensor_bytes + (90_000 if exported.exporter.format == "pt2" else 20_000)


def test_the_student_is_left_as_it_was(exported: Exported) -> None:
    assert state_digest(exported.student.module) == exported.student.proof.student_digest
    assert SplitStudent(exported.student.module, exported.student.proof) == exported.student


def test_bytes_of_something_else_are_refused(exported: Exported) -> None:
    for data in (b"", b"\x00" * 64, b"neither of the formats", exported.data[: len(exported.data) // 2]):
        with pytest.raises(ExportError):
            exported.exporter.open(data, fresh_student)
        with pytest.raises(ExportError):
            exported.exporter.read_metadata(data)


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_of_another_student_are_refused(student: SplitStudent, metadata: ArtefactMetadata, name: str) -> None:
    exporter = exporter_for(name, ExportConfig())
    with pytest.raises(ExportError, match="metadata name 2 classes, the student gives 10 logits"):
        exporter.export(ExportInput(student, metadata.model_copy(update={"classes": ("a", "b")})))
    with pytest.raises(ExportError, match=r"images of \(1, 9, 8\), the student was split on \(1, 8, 8\)"):
        exporter.export(ExportInput(student, metadata.model_copy(update={"input_shape": (1, 9, 8)})))


@pytest.mark.parametrize("name", ["onnx-static", "onnx-int8", "onnx-fp16", "ort"])
def test_the_file_of_another_export_is_refused_as_a_source(from_onnx: ExportInput, name: str) -> None:
    exporter = exporter_for(name, ExportConfig())
    with pytest.raises(ExportError, match=f"{name} is made from the onnx artefact, and none was given"):
        exporter.export(replace(from_onnx, source=None))
    with pytest.raises(ExportError, match=f"{name} is made from has the metadata of another export"):
        exporter.export(replace(from_onnx, metadata=from_onnx.metadata.model_copy(update={"recipe_digest": "b" * 64})))


@pytest.mark.parametrize("name", FORMATS)
def test_a_student_put_back_into_train_mode_is_refused(
    student: SplitStudent, metadata: ArtefactMetadata, name: str
) -> None:
    first = next(student.module.children()).train()
    try:
        with pytest.raises(ExportError, match="is in train mode"):
            exporter_for(name, ExportConfig()).export(ExportInput(student, metadata))
    finally:
        first.eval()


@pytest.mark.parametrize("name", ["safetensors", "torchscript"])
def test_a_local_path_in_the_metadata_is_refused(student: SplitStudent, metadata: ArtefactMetadata, name: str) -> None:
    classes = (*metadata.classes[:9], str(Path.cwd() / "nine"))
    with pytest.raises(ExportError, match="holds a local path"):
        export_format(name, ExportConfig(), student, metadata.model_copy(update={"classes": classes}))


class FixedBatch(nn.Module):
    """Works in PyTorch for any batch, but its trace holds the batch size of the example."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.reshape(int(images.shape[0]), 64))
        return logits


def test_a_batch_size_frozen_into_the_artefact_is_found(metadata: ArtefactMetadata) -> None:
    fixed = split_student(PlainModel(FixedBatch()), digit_images(4))
    with pytest.raises(ExportError, match="does not run on a batch of 1"):
        export_format("torchscript", ExportConfig(), fixed, metadata)


def test_an_unknown_format_is_refused_with_the_choices() -> None:
    with pytest.raises(ExportError, match="no format 'tflite'; there are safetensors, torchscript, onnx, onnx-static"):
        exporter_for("tflite", ExportConfig())
