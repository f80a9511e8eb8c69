from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ExportInput
from ecd_deploy.exporters.audit.audit import audit_artefact
from ecd_deploy.exporters.audit.results import Origin
from ecd_deploy.exporters.audit.sources import StudentSources, student_sources
from ecd_deploy.exporters.executorch.exporter import ExecuTorchExporter, _written
from ecd_deploy.exporters.executorch.layout import read_layout
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split import SplitStudent
from tests.exporters.conftest import fresh_student, make_metadata
from tests.small import digit_images

installed = pytest.mark.skipif(find_spec("executorch") is None, reason="needs the extra executorch")

EXPORT_ELSEWHERE = """
from ecd_deploy.exporters import ExportInput
from ecd_deploy.exporters.executorch.exporter import ExecuTorchExporter
from ecd_deploy.files import sha256_bytes
from tests.exporters.conftest import make_metadata, make_student
print(sha256_bytes(ExecuTorchExporter().export(ExportInput(make_student(), make_metadata()))))
"""


class WithSecret(nn.Module):
    """The student's logits, and another network's that count for nothing."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.secret = nn.Conv2d(1, 10, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.student(images) + 0 * self.secret(images).mean((2, 3))
        return logits


@pytest.fixture(scope="module")
def written(student: SplitStudent) -> bytes:
    return ExecuTorchExporter().export(ExportInput(student, make_metadata()))


@pytest.fixture(scope="module")
def sources(student: SplitStudent) -> StudentSources:
    return student_sources(student, make_metadata())


@pytest.mark.skipif(find_spec("executorch") is not None, reason="the extra is installed")
def test_without_the_extra_it_says_what_to_install(student: SplitStudent) -> None:
    with pytest.raises(ExportError, match=r"pip install 'ecd-deploy\[executorch\]'"):
        ExecuTorchExporter().export(ExportInput(student, make_metadata()))


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"\xff" * 4 + b"ET12eh00" + b"\xff" * 80])
def test_bytes_of_something_else_are_refused_without_the_extra(data: bytes) -> None:
    with pytest.raises(ExportError, match="not an executorch artefact"):
        ExecuTorchExporter().read_metadata(data)
    with pytest.raises(ExportError, match="not an executorch artefact"):
        ExecuTorchExporter().open(data, fresh_student)


@installed
@pytest.mark.slow
def test_its_own_runtime_gives_the_same_logits(student: SplitStudent, written: bytes) -> None:
    images = digit_images(7)
    expected = student.module(images).numpy()
    found = ExecuTorchExporter().open(written, fresh_student)(images.numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    metadata = ExecuTorchExporter().read_metadata(written)
    assert (metadata.student_digest, metadata.batch) == (student.proof.student_digest, 1)


@installed
@pytest.mark.slow
def test_a_device_reads_the_metadata_by_its_runtime(written: bytes) -> None:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(written).load_method("ecd_deploy")
    assert method.execute([]) == [ExecuTorchExporter().read_metadata(written).model_dump_json()]


@installed
@pytest.mark.slow
def test_where_it_is_timed_its_pool_has_the_threads_that_are_asked_for(written: bytes, tmp_path: Path) -> None:
    (tmp_path / "student.pte").write_bytes(written)
    program = """
from ecd_deploy.measure.device.runner.runtimes import load
load("student.pte", 1, None)(1).run()
from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count
print(_threadpool_get_thread_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.stdout.splitlines()[-1:] == ["1"], done.stderr


@installed
@pytest.mark.slow
def test_the_same_bytes_in_another_process_folder_and_hash_seed(written: bytes, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{EXPORT_ELSEWHERE}"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == sha256_bytes(written)


@installed
@pytest.mark.slow
def test_every_tensor_is_traced(student: SplitStudent, sources: StudentSources, written: bytes) -> None:
    metadata = ExecuTorchExporter().read_metadata(written)
    audit = audit_artefact(written, ExecuTorchExporter(), student, sources, metadata)
    assert audit.findings == ()
    assert audit.not_done_reason is None
    weights = [tensor for tensor in audit.tensors if tensor.origin is not Origin.STRUCTURE]
    learned = sum(parameter.numel() for parameter in student.module.parameters())
    assert sum(int(np.prod(tensor.shape)) for tensor in weights) >= 0.95 * learned
    assert audit.overhead_bytes + audit.tensor_bytes == len(written)


@installed
@pytest.mark.slow
def test_what_is_not_the_students_is_found(student: SplitStudent, sources: StudentSources, written: bytes) -> None:
    metadata = ExecuTorchExporter().read_metadata(written)

    def findings(data: bytes) -> str:
        return "\n".join(audit_artefact(data, ExecuTorchExporter(), student, sources, metadata).findings)

    torch.manual_seed(1)
    with_secret = _written(WithSecret(student.module).eval(), (1, 8, 8), metadata.model_dump_json())
    assert "comes from no tensor of the student" in findings(with_secret)
    span = max(read_layout(written).tensors, key=lambda span: span.stop - span.start)
    secret = np.random.default_rng(1).standard_normal((span.stop - span.start) // 4).astype(np.float32).tobytes()
    assert "comes from no tensor" in findings(written[: span.start] + secret + written[span.stop :])
    assert "bytes follow the last segment" in findings(written + secret)


@installed
@pytest.mark.slow
def test_damaged_bytes_are_refused_or_read_whole(written: bytes) -> None:
    exporter = ExecuTorchExporter()
    whole = exporter.read_metadata(written)
    generator = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(written)
        changed[int(generator.integers(0, 8192))] ^= 1 << int(generator.integers(8))
        try:
            assert exporter.read_metadata(bytes(changed)).input_shape
        except ExportError:
            continue
    for length in (0, 100, 4096, len(written) // 2, len(written) - 1):
        with pytest.raises(ExportError):
            exporter.read_metadata(written[:length])
    assert exporter.read_metadata(written) == whole
