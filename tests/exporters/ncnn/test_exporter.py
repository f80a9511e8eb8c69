from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill.model import PlainModel
from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ExportInput
from ecd_deploy.exporters.audit.audit import audit_artefact
from ecd_deploy.exporters.audit.sources import StudentSources, student_sources
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.exporters.files.zip_archive import METADATA, read_parts
from ecd_deploy.exporters.ncnn.exporter import NcnnExporter
from ecd_deploy.exporters.ncnn.layout import GRAPH, WEIGHTS, read_layers, read_weights
from ecd_deploy.exporters.pytorch.torchscript import TorchScriptExporter
from ecd_deploy.files import sha256_bytes, stored_zip
from ecd_deploy.split import SplitStudent, split_student
from tests.exporters.conftest import fresh_student, make_metadata
from tests.small import digit_images

installed = pytest.mark.needs("ncnn", "pnnx")

# Two channels of a 1x1 convolution with bias, and a number for each of the two: as ncnn's own files are.
SMALL_GRAPH = b"""7767517
4 4
Input                    images                   0 1 images
Convolution              conv_0                   1 1 images 1 0=2 1=1 5=1 6=2 9=2 -23310=1,1.000000e-01
PReLU                    prelu_0                  1 1 1 2 0=2
Reduction                mean                     1 1 2 logits 0=3 1=0 -23303=2,1,2
"""
SMALL_WEIGHTS = bytes(4) + np.array([1.5, -2, 0.25, 0.5, 3, 4], dtype="<f4").tobytes()


class Smallest(nn.Module):
    """Logits of which no converter knows the last operation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3)

    def forward(self, images: Tensor) -> Tensor:
        return torch.erfinv(self.conv(images).mean((2, 3)).tanh())


def artefact(graph: bytes = SMALL_GRAPH, weights: bytes = SMALL_WEIGHTS) -> bytes:
    return stored_zip({GRAPH: graph, WEIGHTS: weights, METADATA: make_metadata().model_dump_json().encode()})


def given(student: SplitStudent, metadata: ArtefactMetadata) -> ExportInput:
    return ExportInput(student, metadata, None, TorchScriptExporter().export(ExportInput(student, metadata)))


@pytest.fixture(scope="module")
def written(student: SplitStudent) -> bytes:
    return NcnnExporter().export(given(student, make_metadata()))


@pytest.fixture(scope="module")
def sources(student: SplitStudent) -> StudentSources:
    return student_sources(student, make_metadata())


@pytest.mark.skipif(find_spec("pnnx") is not None, reason="the extra is installed")
def test_without_the_extra_it_says_what_to_install(student: SplitStudent) -> None:
    with pytest.raises(ExportError, match=r"pip install 'ecd-deploy\[ncnn\]'"):
        NcnnExporter().export(given(student, make_metadata()))


def test_it_is_made_from_the_program_of_the_same_export(student: SplitStudent) -> None:
    other = given(student, make_metadata().model_copy(update={"student": "another"}))
    for source in (None, other.source):
        with pytest.raises(ExportError, match="the torchscript artefact"):
            NcnnExporter().export(ExportInput(student, make_metadata(), None, source))


def test_the_reader_finds_tensors_and_numbers_without_the_extra() -> None:
    contents = NcnnExporter().contents(artefact())
    found = {tensor.name: tensor.array.tolist() for tensor in contents.tensors}
    assert found == {"conv_0/0": [1.5, -2], "conv_0/1": [0.25, 0.5], "prelu_0/0": [3, 4]}
    assert contents.numbers == (0.1,)
    assert contents.problems == ()
    assert contents.overhead == SMALL_GRAPH


def test_bytes_that_no_layer_takes_are_a_problem_and_overhead() -> None:
    contents = NcnnExporter().contents(artefact(weights=SMALL_WEIGHTS + b"secret"))
    assert contents.problems == (f"6 bytes of {WEIGHTS} belong to no layer whose weights are known",)
    assert contents.overhead.endswith(b"secret")


@pytest.mark.parametrize(
    ("graph", "weights", "reason"),
    [
        (b"", SMALL_WEIGHTS, "not an ncnn artefact"),
        (SMALL_GRAPH.replace(b"7767517", b"7767518"), SMALL_WEIGHTS, "does not begin or end"),
        (SMALL_GRAPH + b"a secret\n", SMALL_WEIGHTS, "does not begin or end"),
        (SMALL_GRAPH.replace(b"1 1 1 2", b"9 9 1 2"), SMALL_WEIGHTS, "prelu_0 lacks the names"),
        (SMALL_GRAPH.replace(b"-23303=2", b"-23303=3"), SMALL_WEIGHTS, "another length than it says"),
        (SMALL_GRAPH.replace(b"-23303=2,1,2", b'-23403="secret"'), SMALL_WEIGHTS, "a parameter is a text"),
        (SMALL_GRAPH.replace(b"6=2", b"6=-9"), SMALL_WEIGHTS, f"conv_0 lie outside {WEIGHTS}"),
        (SMALL_GRAPH, SMALL_WEIGHTS[:-1], f"prelu_0 lie outside {WEIGHTS}"),
        (SMALL_GRAPH, b"\x47\x6b\x30\x01" + SMALL_WEIGHTS[4:], "conv_0 are not float32"),
    ],
)
def test_bytes_of_something_else_are_refused_without_the_extra(graph: bytes, weights: bytes, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        NcnnExporter().contents(artefact(graph, weights))


@installed
def test_its_own_runtime_gives_the_same_logits_and_the_bytes_are_the_same(
    student: SplitStudent, written: bytes
) -> None:
    source = given(student, make_metadata())
    assert source.source is not None
    assert NcnnExporter().export(source) == written
    images = digit_images(7)
    found = NcnnExporter().open(written, fresh_student)(images.numpy())
    np.testing.assert_allclose(found, student.module(images).numpy(), rtol=0, atol=2e-6)
    metadata = NcnnExporter().read_metadata(written)
    assert (metadata.student_digest, metadata.batch) == (student.proof.student_digest, 1)
    assert metadata.derived_from == sha256_bytes(source.source)


@installed
def test_every_tensor_is_the_students_and_a_planted_one_is_found(
    student: SplitStudent, sources: StudentSources, written: bytes
) -> None:
    exporter = NcnnExporter()
    metadata = exporter.read_metadata(written)
    audit = audit_artefact(written, exporter, student, sources, metadata)
    assert audit.findings == ()
    learned = sum(parameter.numel() for name, parameter in student.module.named_parameters() if "conv" in name)
    assert audit.tensor_bytes >= 4 * learned

    parts = read_parts(written, GRAPH, WEIGHTS, "ncnn")
    layers = read_layers(parts.graph)
    largest = max(read_weights(layers, parts.weights), key=lambda each: each.stop - each.start)
    secret = np.random.default_rng(1).standard_normal((largest.stop - largest.start) // 4).astype("<f4").tobytes()
    swapped = parts.weights[: largest.start] + secret + parts.weights[largest.stop :]
    for weights, finding in ((swapped, "comes from no tensor"), (parts.weights + secret, "belong to no layer")):
        foreign = stored_zip({GRAPH: parts.graph, WEIGHTS: weights, METADATA: parts.metadata.encode()})
        found = audit_artefact(foreign, exporter, student, sources, metadata).findings
        assert any(finding in text for text in found), found


@installed
def test_an_operation_that_ncnn_lacks_is_named() -> None:
    student = split_student(PlainModel(Smallest()), digit_images(4))
    with pytest.raises(ExportError, match="ncnn cannot express the student: it lacks aten::erfinv"):
        NcnnExporter().export(given(student, make_metadata()))
