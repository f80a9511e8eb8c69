from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.openvino_file import OpenVinoExporter
from ecd_deploy.split import SplitStudent
from tests.exporters.conftest import fresh_student, make_metadata
from tests.small import digit_images


@pytest.mark.skipif(find_spec("openvino") is not None, reason="the extra is installed")
def test_without_the_extra_it_says_what_to_install(student: SplitStudent) -> None:
    with pytest.raises(ExportError, match=r"pip install 'ecd-deploy\[openvino\]'"):
        OpenVinoExporter().export(student, make_metadata())


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
def test_its_own_runtime_gives_the_same_logits_and_the_bytes_are_the_same(student: SplitStudent) -> None:
    exporter = OpenVinoExporter()
    data = exporter.export(student, make_metadata())
    assert exporter.export(student, make_metadata()) == data
    images = digit_images(7)
    expected = student.module(images).numpy()
    np.testing.assert_allclose(exporter.open(data, fresh_student)(images.numpy()), expected, rtol=0, atol=2e-6)
    assert exporter.read_metadata(data).student_digest == student.proof.student_digest
