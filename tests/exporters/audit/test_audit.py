"""Every format passes the audit as it is written, and fails it with anything planted in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.jit._trace import is_tracing

from benchmarks.artefact_leaks import ARTEFACT_LEAKS, ArtefactLeak
from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import ExportError, SplitError
from ecd_deploy.exporters import SafetensorsExporter, Written
from ecd_deploy.exporters.audit.audit import audit_artefact, refuse
from ecd_deploy.exporters.audit.matching import match
from ecd_deploy.exporters.audit.results import ArtefactAudit, Origin
from ecd_deploy.exporters.audit.sources import StudentSources, student_sources
from ecd_deploy.exporters.files.contents import FileTensor
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.export import ExportConfig, Int8Config
from ecd_deploy.split import SplitStudent, TensorRecord, split_student
from tests.exporters.conftest import Exported, export_format, make_context, make_metadata
from tests.small import digit_images


@pytest.fixture(scope="module")
def sources(student: SplitStudent) -> StudentSources:
    return student_sources(student, make_metadata())


def audited(exported: Exported, sources: StudentSources, data: bytes | None = None) -> ArtefactAudit:
    metadata = exported.exporter.read_metadata(exported.data)
    content = exported.data if data is None else data
    return audit_artefact(content, exported.exporter, exported.student, sources, metadata)


def test_every_tensor_of_every_format_is_traced(exported: Exported, sources: StudentSources) -> None:
    audit = audited(exported, sources)
    assert audit.findings == ()
    assert audit.passed
    assert audit.not_done_reason is None
    assert all(tensor.origin is not None for tensor in audit.tensors)
    assert all(tensor.error is None or tensor.error <= 1 for tensor in audit.tensors)
    assert audit.names_sought >= 3
    assert audit.digests_sought > 20
    weights = [tensor for tensor in audit.tensors if tensor.origin is not Origin.STRUCTURE]
    learned = sum(parameter.numel() for parameter in exported.student.module.parameters())
    assert sum(int(np.prod(tensor.shape)) for tensor in weights) >= 0.95 * learned
    assert audit.overhead_bytes < audit.overhead_limit


def audit_of(written: Written, student: SplitStudent, sources: StudentSources) -> ArtefactAudit:
    described = written.exporter.read_metadata(written.data)
    return audit_artefact(written.data, written.exporter, student, sources, described)


def test_int8_between_float_operators_is_traced_too(student: SplitStudent, sources: StudentSources) -> None:
    config = ExportConfig(int8=Int8Config(quant_format="qdq", target="arm", count=32))
    written = export_format("onnx-int8", config, student, make_metadata(), make_context())
    audit = audit_of(written, student, sources)
    assert audit.findings == ()
    assert sum(tensor.origin is Origin.QUANTISED for tensor in audit.tensors) >= 10


@pytest.mark.parametrize("preprocessing", ["inside", "full"])
def test_the_constants_of_the_preprocessing_are_known(
    student: SplitStudent, sources: StudentSources, preprocessing: Literal["inside", "full"]
) -> None:
    written = export_format("onnx", ExportConfig(preprocessing=preprocessing), student, make_metadata())
    assert audit_of(written, student, sources).findings == ()


@pytest.mark.parametrize("leak", ARTEFACT_LEAKS, ids=lambda leak: f"{leak.format}: {leak.name}")
def test_the_leak_is_found(artefacts: dict[str, Exported], sources: StudentSources, leak: ArtefactLeak) -> None:
    exported = artefacts[leak.format]
    secret = np.random.default_rng(1).standard_normal((16, 1, 3, 3)).astype(np.float32)
    audit = audited(exported, sources, leak.plant(exported.data, secret))
    assert not audit.passed
    assert any(re.search(leak.finding, finding) for finding in audit.findings), audit.findings
    with pytest.raises(ExportError, match="is not the student and nothing else"):
        refuse(audit)


def test_a_tensor_of_the_teacher_is_recognised_by_its_digest(
    artefacts: dict[str, Exported], sources: StudentSources
) -> None:
    exported = artefacts["onnx"]
    model = onnx.load_model_from_string(exported.data)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "conv1.weight_bias")
    stolen = TensorRecord(
        name="teacher.bias", kind="parameter", dtype="float32", shape=(16,), sha256=sha256_bytes(bias.raw_data)
    )
    proof = exported.student.proof.model_copy(update={"auxiliary_tensors": (stolen,)})
    student = SplitStudent(exported.student.module, proof)
    exporter = exported.exporter
    audit = audit_artefact(exported.data, exporter, student, sources, exporter.read_metadata(exported.data))
    assert audit.findings == ("conv1.weight_bias has the bytes of teacher.bias",)


def test_zeros_are_nobodys() -> None:
    hidden = nn.Linear(36, 32)
    nn.init.zeros_(hidden.bias)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(2), hidden, nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    student, metadata = split_student(PlainModel(module), digit_images(4)), make_metadata()
    # Sixteen zeros of four bytes are thirty-two of two, as float16 has them.
    zeros = sha256_bytes(bytes(64))
    stolen = TensorRecord(name="teacher.bias", kind="parameter", dtype="float32", shape=(16,), sha256=zeros)
    student = SplitStudent(student.module, student.proof.model_copy(update={"auxiliary_tensors": (stolen,)}))
    written = export_format("onnx-fp16", ExportConfig(), student, metadata)
    assert bytes(64) in written.data
    assert audit_of(written, student, student_sources(student, metadata)).findings == ()


def test_metadata_that_say_something_else_are_found(artefacts: dict[str, Exported], sources: StudentSources) -> None:
    exported = artefacts["onnx"]
    metadata = exported.exporter.read_metadata(exported.data).model_copy(update={"classes": tuple("abcdefghij")})
    audit = audit_artefact(exported.data, exported.exporter, exported.student, sources, metadata)
    assert audit.findings == ("the metadata's classes is not the one that was given",)


class Unread(SafetensorsExporter):
    """A format whose package has no reader yet."""

    def contents(self, data: bytes) -> None:  # type: ignore[override]
        assert data


def test_a_format_without_a_reader_is_recorded_as_not_done(student: SplitStudent, sources: StudentSources) -> None:
    metadata = make_metadata().model_copy(update={"student_digest": student.proof.student_digest})
    audit = audit_artefact(b"weights", Unread(), student, sources, metadata)
    assert audit.passed
    assert "'safetensors' were not traced" in (audit.not_done_reason or "")
    assert "implement `contents(data)`" in (audit.not_done_reason or "")
    assert not audit_artefact(b"weights teacher.conv1", Unread(), student, sources, metadata).passed


NOT_THERE = "numbers are spelled out that are not in the student's graph: 1.00137"


class OnlyTranslated(nn.Module):
    """Numbers in a branch that only a translation takes."""

    def __init__(self, count: int, taken: Callable[[], bool]) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)
        self.count, self.taken = count, taken

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(images.flatten(1))
        if self.taken():
            for number in range(self.count):
                logits = logits.mul(1 + 0.00137 * number).sigmoid()
        return logits


@pytest.mark.parametrize(
    ("format_name", "taken", "count", "finding"),
    [
        ("onnx", torch.onnx.is_in_onnx_export, 100, r"\d\d different numbers"),
        (
            "onnx",
            torch.onnx.is_in_onnx_export,
            20,
            NOT_THERE,
        ),
        (
            "torchscript",
            is_tracing,
            20,
            NOT_THERE,
        ),
    ],
)
def test_numbers_that_only_a_translation_spells_out_are_found(
    format_name: str, taken: Callable[[], bool], count: int, finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SplitStudent, "program", property(_cannot_be_had))  # so that ONNX traces the forward itself
    build = partial(OnlyTranslated, count, taken)
    student = split_student(PlainModel(build()), digit_images(4), factory=build)
    written = export_format(format_name, ExportConfig(), student, make_metadata())
    findings = audit_of(written, student, student_sources(student, make_metadata())).findings
    assert any(re.search(finding, one) for one in findings), findings


def _cannot_be_had(_student: SplitStudent) -> None:
    raise SplitError("torch.export cannot express it for any number of images")


def test_onnx_is_written_from_the_graph_that_is_audited_and_takes_no_branch_of_its_own() -> None:
    build = partial(OnlyTranslated, 20, torch.onnx.is_in_onnx_export)
    student = split_student(PlainModel(build()), digit_images(4), factory=build)
    written = export_format("onnx", ExportConfig(), student, make_metadata())
    assert audit_of(written, student, student_sources(student, make_metadata())).findings == ()
    images = digit_images(4)
    found = written.exporter.open(written.data, build)(images.numpy())
    np.testing.assert_allclose(found, student.module(images).numpy(), atol=1e-5)


class Activated(nn.Module):
    """Activations, norms and attention, for which translations write numbers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 24)
        self.attention = nn.TransformerEncoderLayer(24, 4, 48, activation="gelu", batch_first=True)
        self.norm = nn.LayerNorm(24, eps=1.7e-5)
        self.rest = nn.Sequential(nn.Hardswish(), nn.Hardsigmoid(), nn.GELU("tanh"), nn.Softplus(), nn.ELU(0.7))
        self.fc = nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.attention(self.embed(images.flatten(1, 2))))
        logits: Tensor = self.fc(self.rest(tokens).mean(1) / 3.3)
        return logits


@pytest.mark.parametrize("name", ["torchscript", "onnx", "pt2"])
def test_numbers_that_a_translation_is_known_to_add_pass(name: str) -> None:
    student = split_student(PlainModel(Activated()), digit_images(4), factory=Activated)
    written = export_format(name, ExportConfig(), student, make_metadata())
    findings = audit_of(written, student, student_sources(student, make_metadata())).findings
    assert not [finding for finding in findings if "spelled out" in finding]


@pytest.mark.parametrize("name", ["torchscript", "onnx", "pt2"])
def test_sizes_of_large_tensors_are_no_numbers(name: str) -> None:
    sizes = (64, 1100, 1200, 1300, 1400, 1500, 10)
    layers = (nn.Linear(before, after) for before, after in itertools.pairwise(sizes))
    student = split_student(PlainModel(nn.Sequential(nn.Flatten(), *layers)), digit_images(4))
    written = export_format(name, ExportConfig(), student, make_metadata())
    assert audit_of(written, student, student_sources(student, make_metadata())).findings == ()


class Composite(nn.Module):
    """Weights that exist only as an expression of parameters, and a norm that no convolution takes up."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 1, 3, 3))
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        spread = self.weight.std(dim=(1, 2, 3), keepdim=True)
        features = nn.functional.conv2d(images, self.weight / spread, padding=1).relu()
        logits: Tensor = self.fc(self.norm(features).mean(dim=(2, 3)))
        return logits


class Scaled(nn.Module):
    """A layer scale, which onnxruntime folds into the convolution before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.gamma = nn.Parameter(torch.randn(8))
        self.fc = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = nn.functional.dropout(self.conv(images), 0.5, self.training)
        features = features.mul(self.gamma.reshape(1, -1, 1, 1)).relu()
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


class Masked(nn.Module):
    """A mask of the features' size, which onnxruntime computes when the file is made."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.fc = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        mask = features.new_zeros(features.shape[2:])
        for index in range(2):
            mask[index::3, index:] = index + 0.7
        difference = mask.unsqueeze(0) - mask.unsqueeze(1)
        features = features + difference.masked_fill(difference != 0, -100.5)
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("torchscript", Composite),
        ("onnx", Composite),
        ("ort", Composite),
        ("torchscript", Scaled),
        ("ort", Scaled),
        ("ort", Masked),
    ],
)
def test_expressions_of_weights_are_recomputed(name: str, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind()
    with torch.no_grad():
        module.train()(digit_images(32))
    student = split_student(PlainModel(module), digit_images(4))
    written = export_format(name, ExportConfig(), student, make_metadata())
    assert audit_of(written, student, student_sources(student, make_metadata())).findings == ()


def index_of_a_pooling(size: int, to: int) -> NDArray[np.int64]:
    """Where an adaptive pooling of size x size to to x to reads, as torch.onnx writes it: (to, k, to, k, 2)."""
    starts = np.arange(to) * size // to
    rows = (starts[:, None] + np.arange(2))[:, :, None, None] + np.zeros((1, 1, to, 2), np.int64)
    return np.stack([rows, rows.transpose(2, 3, 0, 1)], axis=-1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(768).reshape(1, 768, 1, 1), Origin.STRUCTURE),
        (index_of_a_pooling(2, 7), Origin.STRUCTURE),
        (np.outer([1, 2, 1, 2, 2, 1, 2], [1, 2, 1, 1, 2, 1, 1]).astype(np.float32), Origin.STRUCTURE),
        (np.outer([1, 2, 1, 2, 2, 1, 2], [1, 2, 1, 1, 2, 1, 1]).astype(np.float16), Origin.STRUCTURE),
        (np.arange(300)[:, None] + 1_000 * np.arange(300), Origin.STRUCTURE),
        (np.random.default_rng(0).integers(0, 9, 65), None),
        (np.random.default_rng(0).integers(0, 9, (8, 9)), None),
        (np.random.default_rng(0).integers(0, 9, (16, 4, 3, 3)).astype(np.float32), None),
        (np.random.default_rng(0).permutation(768).reshape(1, 768, 1, 1), None),
        (np.random.default_rng(0).standard_normal((7, 7)).astype(np.float32), None),
    ],
    ids=[
        "range",
        "pooling",
        "counts",
        "half counts",
        "sum of ranges",
        "65",
        "8 x 9",
        "integral weights",
        "permutation",
        "weights",
    ],
)
def test_index_tensors_are_told_from_values(
    values: NDArray[Any], expected: Origin | None, sources: StudentSources
) -> None:
    found = match(FileTensor("index", values), sources)
    assert (None if found is None else found.origin) == expected


@pytest.mark.parametrize(("numbers", "expected"), [(1, Origin.STRUCTURE), (2, None)])
def test_bytes_of_unknown_type_may_be_one_number(
    numbers: int, expected: Origin | None, sources: StudentSources
) -> None:
    raw = np.random.default_rng(0).standard_normal(numbers).tobytes()
    found = match(FileTensor("constants/20", np.frombuffer(raw, np.float32), raw=raw), sources)
    assert (None if found is None else found.origin) == expected
