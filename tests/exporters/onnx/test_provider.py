"""Artefacts on an execution provider; of those that onnxruntime's build on PyPI has, Azure's takes no operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.exporters.onnx.file import parse_onnx
from ecd_deploy.exporters.onnx.provider import open_artefact
from tests.exporters.conftest import Exported, fresh_student
from tests.small import digit_images


@pytest.mark.parametrize("name", ["onnx", "ort"])
def test_what_onnxruntime_runs_is_opened_on_the_provider(artefacts: dict[str, Exported], name: str) -> None:
    exported, images = artefacts[name], digit_images(3).numpy()
    opened = open_artefact(exported.exporter, exported.data, fresh_student, provider="cpu:use_arena=0")
    expected = exported.exporter.open(exported.data, fresh_student)(images)
    np.testing.assert_allclose(opened.predictor(images), expected, rtol=0, atol=1e-6)
    assert (opened.provider, opened.on_cpu, opened.coarse) == ("CPUExecutionProvider", (), False)


def test_what_another_runtime_runs_has_no_provider(artefacts: dict[str, Exported]) -> None:
    exported = artefacts["safetensors"]
    opened = open_artefact(exported.exporter, exported.data, fresh_student, provider="Azure")
    assert (opened.provider, opened.predictor(digit_images(2).numpy()).shape) == (None, (2, 10))


@pytest.mark.parametrize(
    ("provider", "failure", "said"),
    [
        ("Azure", ArtefactError, r"student\.\w+ on profile.provider Azure: AzureExecutionProvider runs no operator"),
        (
            "NoSuchThing",
            UsageError,
            "profile.provider NoSuchThing: onnxruntime .* has no provider NoSuchThing; it has ",
        ),
    ],
)
@pytest.mark.parametrize("name", ["onnx", "ort"])
def test_a_provider_that_does_nothing_is_refused(
    artefacts: dict[str, Exported], name: str, provider: str, failure: type[Exception], said: str
) -> None:
    exported = artefacts[name]
    with pytest.raises(failure, match=said):
        open_artefact(exported.exporter, exported.data, fresh_student, provider=provider)


def test_an_ort_file_says_what_the_onnx_file_says_that_it_was_made_from(artefacts: dict[str, Exported]) -> None:
    ort, onnx = (parse_onnx(Path(f"student.{name}"), artefacts[name].data) for name in ("ort", "onnx"))
    assert (ort.inputs, ort.outputs, ort.budget) == (onnx.inputs, onnx.outputs, onnx.budget)
    assert ort.metadata is not None
    assert ort.metadata.model_copy(update={"target": None, "derived_from": None}) == onnx.metadata
    with pytest.raises(ArtefactError, match=r"cut\.ort cannot be used"):
        parse_onnx(Path("cut.ort"), artefacts["ort"].data[:-5000])
