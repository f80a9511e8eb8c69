from __future__ import annotations

import struct
from importlib.util import find_spec

import numpy as np
import pytest

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ExportInput
from ecd_deploy.exporters.audit.audit import audit_artefact
from ecd_deploy.exporters.audit.sources import student_sources
from ecd_deploy.exporters.coreml.exporter import CoreMlExporter
from ecd_deploy.exporters.coreml.layout import GRAPH, MANIFEST, WEIGHTS, read_model
from ecd_deploy.exporters.pytorch.torchscript import TorchScriptExporter
from ecd_deploy.files import sha256_bytes, stored_zip
from ecd_deploy.split import SplitStudent
from tests.exporters.conftest import fresh_student, make_metadata
from tests.small import digit_images

installed = pytest.mark.needs("coremltools")

FLOAT32, INT32 = 11, 23
WEIGHT = np.array([[1.5, -2, 0.25, 0], [0.5, 1, 3, 4]], dtype="<f4")
BIAS = np.array([0.125, -1], dtype="<f4")
ENTRY = struct.pack("<IIQQ", 0xDEADBEEF, 2, WEIGHT.nbytes, 128).ljust(64, b"\0")
BLOBS = struct.pack("<II", 1, 2).ljust(64, b"\0") + ENTRY + WEIGHT.tobytes()


def varint(number: int) -> bytes:
    low = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([byte | 0x80 for byte in low[:-1]] + low[-1:])


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    """A protocol buffer of its fields' numbers and values."""
    encoded = b""
    for number, value in fields:
        if isinstance(value, int):
            encoded += varint(number << 3) + varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            encoded += varint(number << 3 | 2) + varint(len(content)) + content
    return encoded


def constant(name: str, kind: int, shape: tuple[int, ...], *value: tuple[int, int | bytes | str]) -> bytes:
    sizes = [(3, message((1, message((1, size))))) for size in shape]
    tensor = message((1, message((1, kind), (2, len(shape)), *sizes)))
    return message((1, "const"), (3, message((1, name))), (5, message((1, "val"), (2, message((2, tensor), *value)))))


def spelled(field: int, content: bytes) -> tuple[int, bytes]:
    return 3, message((1, message((field, message((1, content))))))


def operation(kind: str, gives: str, **takes: str) -> bytes:
    inputs = [(2, message((1, key), (2, message((1, message((1, name))))))) for key, name in takes.items()]
    return message((1, kind), *inputs, (3, message((1, gives))))


def graph(
    *,
    last: str = "linear",
    place: int = 64,
    file: str = "@model_path/weights/weight.bin",
    beside: tuple[int, int | bytes] | None = None,
    nested: bool = False,
) -> bytes:
    """Images of four pixels, times a matrix in the weights, plus two numbers that the graph spells out."""
    operations = [
        constant("shape", INT32, (2,), spelled(2, b"\1\4")),
        constant("weight", FLOAT32, WEIGHT.shape, (5, message((1, file), (2, place)))),
        constant("bias", FLOAT32, BIAS.shape, spelled(1, BIAS.tobytes())),
        constant("step", FLOAT32, (), spelled(1, np.float32(0.1).tobytes())),
        operation("reshape", "flat", x="images", shape="shape") + (message((4, b"")) if nested else b""),
        operation(last, "logits", x="flat", weight="weight", bias="bias"),
    ]
    block = message((2, "logits"), *((3, each) for each in operations))
    program = message((2, message((1, "main"), (2, message((3, message((1, "CoreML5"), (2, block))))))))
    texts = message((100, message((1, "ecd_deploy"), (2, make_metadata().model_dump_json()))))
    described = message((1, message((1, "images"))), (10, message((1, "logits"))), (100, texts))
    return message((1, 6), (2, described), (502, program), *([] if beside is None else [beside]))


def artefact(content: bytes | None = None, weights: bytes = BLOBS) -> bytes:
    return stored_zip({MANIFEST: b"{}", GRAPH: graph() if content is None else content, WEIGHTS: weights})


def given(student: SplitStudent) -> ExportInput:
    return ExportInput(
        student, make_metadata(), None, TorchScriptExporter().export(ExportInput(student, make_metadata()))
    )


def test_the_graph_is_read_and_evaluated_without_the_extra() -> None:
    exporter = CoreMlExporter()
    contents = exporter.contents(artefact())
    assert {tensor.name: tensor.array.tolist() for tensor in contents.tensors} == {
        "weight": WEIGHT.tolist(),
        "bias": BIAS.tolist(),
    }
    assert contents.numbers == (float(np.float32(0.1)),)
    assert contents.problems == ()
    assert len(contents.overhead) < contents.overhead_limit
    assert exporter.read_metadata(artefact()) == make_metadata()
    images = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    found = exporter.open(artefact(), fresh_student)(images)
    np.testing.assert_allclose(found, images.reshape(3, 4) @ WEIGHT.T + BIAS)


def test_bytes_that_no_constant_takes_are_overhead() -> None:
    contents = CoreMlExporter().contents(artefact(weights=BLOBS + b"secret" * 9_999))
    assert contents.overhead.endswith(b"secret")
    assert len(contents.overhead) > contents.overhead_limit


def test_another_model_beside_the_program_is_a_problem() -> None:
    found = CoreMlExporter().contents(artefact(graph(beside=(500, b"a network")))).problems
    assert found == ("the package holds another model beside the program",)


def test_an_operation_that_is_not_known_is_named() -> None:
    with pytest.raises(ExportError, match="operations lstm cannot be evaluated here"):
        CoreMlExporter().open(artefact(graph(last="lstm")), fresh_student)


@pytest.mark.parametrize(
    ("content", "weights", "reason"),
    [
        (b"", BLOBS, "not a coreml artefact"),
        (graph()[:-1], BLOBS, "a field is longer than its message"),
        (graph() + b"\x0b", BLOBS, "a field of the unknown kind 3"),
        (graph(place=65), BLOBS, f"weight does not lie in {WEIGHTS}"),
        (graph(file="@model_path/other.bin"), BLOBS, f"weight does not lie in {WEIGHTS}"),
        (graph(), BLOBS[:-1], f"weight does not lie in {WEIGHTS}"),
        (graph(nested=True), BLOBS, "the operation reshape has a graph of its own"),
    ],
)
def test_bytes_of_something_else_are_refused_without_the_extra(content: bytes, weights: bytes, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        CoreMlExporter().contents(artefact(content, weights))


@pytest.mark.skipif(find_spec("coremltools") is not None, reason="the extra is installed")
def test_without_the_extra_it_says_what_to_install(student: SplitStudent) -> None:
    with pytest.raises(ExportError, match=r"pip install 'ecd-deploy\[coreml\]'"):
        CoreMlExporter().export(given(student))


@installed
def test_a_student_has_the_same_logits_and_bytes_and_its_tensors_alone(student: SplitStudent) -> None:
    source, exporter = given(student), CoreMlExporter()
    written = exporter.export(source)
    assert exporter.export(source) == written
    images = digit_images(7)
    found = exporter.open(written, fresh_student)(images.numpy())
    np.testing.assert_allclose(found, student.module(images).numpy(), rtol=0, atol=2e-6)
    metadata = exporter.read_metadata(written)
    assert (metadata.student_digest, metadata.batch) == (student.proof.student_digest, 1)
    assert metadata.derived_from == sha256_bytes(source.source or b"")

    sources = student_sources(student, make_metadata())
    assert audit_artefact(written, exporter, student, sources, metadata).findings == ()
    model = read_model(written)
    spans = (constant.span for constant in model.constants.values() if constant.span is not None)
    largest = max(spans, key=lambda span: span.stop - span.start)
    secret = np.random.default_rng(1).standard_normal((largest.stop - largest.start) // 4).astype("<f4").tobytes()
    swapped = model.weights[: largest.start] + secret + model.weights[largest.stop :]
    for weights, finding in ((swapped, "comes from no tensor"), (model.weights + secret, "bytes are no tensor")):
        foreign = stored_zip({MANIFEST: model.manifest, GRAPH: model.graph, WEIGHTS: weights})
        findings = audit_artefact(foreign, exporter, student, sources, metadata).findings
        assert any(finding in text for text in findings), findings
