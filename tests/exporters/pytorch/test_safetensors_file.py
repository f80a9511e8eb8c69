from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from ecd_deploy.errors import ExportError
from ecd_deploy.models import build_student
from tests.exporters.conftest import Exported, fresh_student


def test_the_plain_class_loads_it_strictly(artefacts: dict[str, Exported]) -> None:
    exported = artefacts["safetensors"]
    plain = fresh_student()
    plain.load_state_dict(safetensors.torch.load(exported.data), strict=True)
    expected = exported.student.module.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in plain.state_dict().items())


def test_the_header_has_one_metadata_key(artefacts: dict[str, Exported]) -> None:
    data = artefacts["safetensors"].data
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == ["ecd_deploy"]
    assert json.loads(header["__metadata__"]["ecd_deploy"])["classes"] == list("0123456789")


def test_another_architecture_is_refused(artefacts: dict[str, Exported]) -> None:
    exported = artefacts["safetensors"]
    with pytest.raises(ExportError, match="does not fit CifarResNet"):
        exported.exporter.open(exported.data, lambda: build_student("resnet20", num_classes=10, in_channels=1))


def test_a_file_without_metadata_says_so(artefacts: dict[str, Exported]) -> None:
    exporter = artefacts["safetensors"].exporter
    with pytest.raises(ExportError, match="has no metadata 'ecd_deploy'"):
        exporter.read_metadata(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(ExportError, match=r"metadata are malformed:\s+student: is missing"):
        exporter.read_metadata(safetensors.torch.save({"a": torch.zeros(1)}, metadata={"ecd_deploy": "{}"}))
