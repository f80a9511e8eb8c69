from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ExportInput
from ecd_deploy.exporters.audit.audit import audit_artefact
from ecd_deploy.exporters.audit.sources import student_sources
from ecd_deploy.exporters.openvino.contents import WEIGHTS
from ecd_deploy.exporters.openvino.exporter import OpenVinoExporter
from tests.exporters.conftest import fresh_student
from tests.small import digit_images


@pytest.mark.skipif(find_spec("openvino") is not None, reason="the extra is installed")
def test_without_the_extra_it_says_what_to_install(from_onnx: ExportInput) -> None:
    with pytest.raises(ExportError, match=r"pip install 'ecd-deploy\[openvino\]'"):
        OpenVinoExporter().export(from_onnx)


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
def test_every_tensor_is_the_students_and_a_planted_one_is_found(from_onnx: ExportInput) -> None:
    student = from_onnx.student
    exporter = OpenVinoExporter()
    data = exporter.export(from_onnx)
    sources = student_sources(student, from_onnx.metadata)
    audit = audit_artefact(data, exporter, student, sources, exporter.read_metadata(data))
    assert audit.passed, audit.findings
    weights = sum(parameter.numel() for name, parameter in student.module.named_parameters() if "conv" in name)
    assert sum(tensor.bytes for tensor in audit.tensors) >= 4 * weights

    for foreign, finding in ((_swapped(data), "comes from no tensor"), (_lengthened(data), "are no tensor")):
        found = audit_artefact(foreign, exporter, student, sources, exporter.read_metadata(foreign))
        assert any(finding in text for text in found.findings), found.findings


def _swapped(data: bytes) -> bytes:
    """The same archive with the largest constant's values in another order."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weights = np.frombuffer(archive.read(WEIGHTS)[: len(archive.read(WEIGHTS)) // 4 * 4], dtype=np.float32).copy()
    weights[: len(weights) // 2] += 1
    return _with_weights(data, weights.tobytes())


def _lengthened(data: bytes) -> bytes:
    """The same archive with as many bytes again behind the last constant."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weights = archive.read(WEIGHTS)
    return _with_weights(data, weights + b"secret " * (len(weights) // 4))


def _with_weights(data: bytes, weights: bytes) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as changed:
        for entry in archive.infolist():
            changed.writestr(entry, weights if entry.filename == WEIGHTS else archive.read(entry))
    return result.getvalue()


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
def test_its_own_runtime_gives_the_same_logits_and_the_bytes_are_the_same(from_onnx: ExportInput) -> None:
    student = from_onnx.student
    exporter = OpenVinoExporter()
    data = exporter.export(from_onnx)
    assert exporter.export(from_onnx) == data
    images = digit_images(7)
    expected = student.module(images).numpy()
    np.testing.assert_allclose(exporter.open(data, fresh_student)(images.numpy()), expected, rtol=0, atol=2e-6)
    assert exporter.read_metadata(data).student_digest == student.proof.student_digest
