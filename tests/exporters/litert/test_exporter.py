from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ExportInput
from ecd_deploy.exporters.audit.audit import audit_artefact
from ecd_deploy.exporters.audit.sources import student_sources
from ecd_deploy.exporters.litert.converter import CONVERTER_PYTHON
from ecd_deploy.exporters.litert.exporter import LiteRtExporter
from ecd_deploy.exporters.litert.layout import read_layout
from ecd_deploy.exporters.pytorch.pt2 import Pt2Exporter
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split import SplitStudent
from tests.exporters.conftest import fresh_student, make_metadata
from tests.small import digit_images

installed = pytest.mark.skipif(
    find_spec("ai_edge_litert") is None or CONVERTER_PYTHON not in os.environ,
    reason=f"needs the extra litert, and {CONVERTER_PYTHON}, a Python that has litert-torch",
)


@pytest.fixture(scope="module")
def given(student: SplitStudent) -> ExportInput:
    source = Pt2Exporter().export(ExportInput(student, make_metadata()))
    return ExportInput(student, make_metadata(), None, source)


@pytest.fixture(scope="module")
def written(given: ExportInput) -> bytes:
    return LiteRtExporter().export(given)


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("", "names none: make one with .* litert-torch"),
        ("/nowhere/python", "ECD_DEPLOY_LITERT_PYTHON names no Python, /nowhere/python"),
        (sys.executable, "litert-torch cannot convert the student: .*No module named 'litert_torch'"),
    ],
)
def test_a_converter_that_is_not_there_is_named(
    given: ExportInput, monkeypatch: pytest.MonkeyPatch, python: str, reason: str
) -> None:
    monkeypatch.setenv(CONVERTER_PYTHON, python)
    with pytest.raises(ExportError, match=reason):
        LiteRtExporter().export(given)


def test_it_is_made_from_the_program_of_the_same_export(given: ExportInput) -> None:
    other = make_metadata().model_copy(update={"student": "another"})
    for foreign in (ExportInput(given.student, make_metadata()), ExportInput(given.student, other, None, given.source)):
        with pytest.raises(ExportError, match="the pt2 artefact"):
            LiteRtExporter().export(foreign)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"\xff" * 4 + b"TFL3" + b"\xff" * 80])
def test_bytes_of_something_else_are_refused_without_the_extra(data: bytes) -> None:
    for read in (LiteRtExporter().read_metadata, lambda given: LiteRtExporter().open(given, fresh_student)):
        with pytest.raises(ExportError, match="litert artefact"):
            read(data)


@installed
@pytest.mark.slow
def test_its_own_runtime_gives_the_same_logits_and_the_bytes_are_the_same(given: ExportInput, written: bytes) -> None:
    assert given.source is not None
    assert LiteRtExporter().export(given) == written
    images = digit_images(7)
    found = LiteRtExporter().open(written, fresh_student)(images.numpy())
    np.testing.assert_allclose(found, given.student.module(images).numpy(), rtol=0, atol=2e-6)
    metadata = LiteRtExporter().read_metadata(written)
    assert (metadata.student_digest, metadata.batch) == (given.student.proof.student_digest, 1)
    assert metadata.derived_from == sha256_bytes(given.source)


@installed
@pytest.mark.slow
def test_every_tensor_is_the_students_and_a_planted_one_is_found(given: ExportInput, written: bytes) -> None:
    exporter, student = LiteRtExporter(), given.student
    metadata, sources = exporter.read_metadata(written), student_sources(student, make_metadata())
    audit = audit_artefact(written, exporter, student, sources, metadata)
    assert audit.findings == ()
    assert audit.overhead_bytes + audit.tensor_bytes == len(written)
    learned = sum(parameter.numel() for name, parameter in student.module.named_parameters() if "conv" in name)
    assert audit.tensor_bytes >= 4 * learned

    largest = max(read_layout(written).tensors, key=lambda span: span.stop - span.start)
    secret = np.random.default_rng(1).standard_normal((largest.stop - largest.start) // 4).astype("<f4").tobytes()
    swapped = written[: largest.start] + secret + written[largest.stop :]
    for foreign, finding in ((swapped, "comes from no tensor"), (written + secret, "are no tensor")):
        found = audit_artefact(foreign, exporter, student, sources, metadata).findings
        assert any(finding in text for text in found), found
    for length in (0, 100, len(written) // 2):
        with pytest.raises(ExportError):
            exporter.read_metadata(written[:length])
