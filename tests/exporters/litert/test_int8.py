from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ExportInput
from ecd_deploy.exporters.audit.audit import audit_artefact
from ecd_deploy.exporters.audit.results import Origin
from ecd_deploy.exporters.audit.sources import student_sources
from ecd_deploy.exporters.litert.converter import CONVERTER_PYTHON
from ecd_deploy.exporters.litert.int8 import Int8LiteRtExporter
from ecd_deploy.exporters.litert.layout import read_layout
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.export import ExportConfig, Int8Config
from ecd_deploy.split import SplitStudent
from tests.exporters.conftest import export_format, fresh_student, make_context, make_metadata
from tests.small import digit_images

installed = pytest.mark.skipif(
    find_spec("ai_edge_litert") is None or CONVERTER_PYTHON not in os.environ,
    reason=f"needs the extra litert, and {CONVERTER_PYTHON}, a Python that has litert-torch",
)


@pytest.fixture(scope="module")
def given(student: SplitStudent) -> ExportInput:
    source = export_format("litert", ExportConfig(), student, make_metadata()).data
    return ExportInput(student, make_metadata(), make_context(), source)


@pytest.fixture(scope="module")
def written(given: ExportInput) -> bytes:
    return Int8LiteRtExporter().export(given)


def test_it_is_made_from_the_litert_artefact_of_the_same_export(student: SplitStudent) -> None:
    with pytest.raises(ExportError, match="the litert artefact"):
        Int8LiteRtExporter().export(ExportInput(student, make_metadata(), make_context()))


@installed
@pytest.mark.slow
def test_its_own_runtime_stays_near_the_student_and_the_bytes_are_the_same(given: ExportInput, written: bytes) -> None:
    assert given.source is not None
    exporter = Int8LiteRtExporter()
    assert exporter.export(given) == written
    assert len(written) < 0.5 * len(given.source)
    images = digit_images(64)
    expected, found = given.student.module(images).numpy(), exporter.open(written, fresh_student)(images.numpy())
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= exporter.budget.relative * np.abs(expected).max()
    assert float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()) >= exporter.budget.agreement
    metadata = exporter.read_metadata(written)
    assert (metadata.batch, metadata.derived_from) == (1, sha256_bytes(given.source))
    assert metadata.quantisation is not None
    assert metadata.quantisation.calibration_images == 64
    assert metadata.quantisation.validation_images == 128


@installed
@pytest.mark.slow
def test_operators_go_back_to_float_until_the_loss_is_within_the_limit(given: ExportInput) -> None:
    assert given.context is not None
    exporter = Int8LiteRtExporter(Int8Config(max_drop=0.0))
    record = exporter.read_metadata(exporter.export(given)).quantisation
    assert record is not None
    assert record.float_top1 is not None
    assert record.top1 is not None
    assert record.full_int8_top1 is not None
    assert record.full_int8_top1 < record.float_top1 <= record.top1
    assert record.float_nodes
    unwatched = replace(given, context=replace(given.context, validation=None))
    blind = exporter.read_metadata(exporter.export(unwatched)).quantisation
    assert blind is not None
    assert (blind.float_nodes, blind.top1, blind.max_drop) == ((), None, None)


@installed
@pytest.mark.slow
def test_its_integers_are_the_students_and_planted_ones_are_found(given: ExportInput, written: bytes) -> None:
    exporter, student = Int8LiteRtExporter(), given.student
    metadata, sources = exporter.read_metadata(written), student_sources(student, make_metadata())
    audit = audit_artefact(written, exporter, student, sources, metadata)
    assert audit.findings == ()
    assert audit.overhead_bytes + audit.tensor_bytes == len(written)
    convolutions = sum("conv" in name and "weight" in name for name, _ in student.module.named_parameters())
    quantised = [tensor for tensor in audit.tensors if tensor.origin is Origin.QUANTISED and tensor.dtype == "int8"]
    assert len(quantised) >= convolutions

    largest = max(read_layout(written).tensors, key=lambda tensor: tensor.stop - tensor.start)
    assert largest.steps is not None
    generator = np.random.default_rng(1)
    secret = generator.integers(-127, 128, largest.stop - largest.start, dtype=np.int8).tobytes()
    places = (largest, largest.steps.scale, largest.steps.zero)
    size = largest.steps.scale.stop - largest.steps.scale.start
    foreign = (secret, generator.random(size // 4).astype("<f4").tobytes(), secret[: 2 * size])
    for place, content in zip(places, foreign, strict=True):
        swapped = written[: place.start] + content + written[place.stop :]
        assert len(swapped) == len(written)
        found = audit_artefact(swapped, exporter, student, sources, metadata).findings
        assert any("comes from no tensor" in text for text in found), place.name
