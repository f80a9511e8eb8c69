"""A format of another package: found by its entry point, without a change here."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from ecd_deploy.errors import ExportError, RecipeError
from ecd_deploy.exporters import exporter_for
from ecd_deploy.recipe.export import ENTRY_POINT_GROUP, ExportConfig, format_names
from ecd_deploy.recipe.recipe import parse_recipe
from tests.exporters.conftest import fresh_student, make_metadata, make_student
from tests.small import digit_images

TOY = """
import numpy as np
from ecd_deploy.exporters import SafetensorsExporter

class Toy:
    format, filename, runtime, budget = "toy", "student.toy", "other", None
    def __init__(self, config):
        self.opset = config.opset
        self._inner = SafetensorsExporter()
    def export(self, student, metadata, context=None):
        return b"TOY" + self._inner.export(student, metadata)
    def open(self, data, build, *, threads=1):
        return self._inner.open(data[3:], build)
    def read_metadata(self, data):
        return self._inner.read_metadata(data[3:])

def broken(config):
    raise RuntimeError("no such device")
"""
RECIPE = '[data]\nsource = "digits"\n[student]\nname = "resnet8"\n[export]\nformats = ["onnx", "{}"]\n'


@pytest.fixture
def outside_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_format.py").write_text(TOY)
    info = tmp_path / "toy_format-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-format\nVersion: 1.0\n")
    lines = ("toy = toy_format:Toy", "broken = toy_format:broken", "liar = toy_format:Toy", "absent = nowhere:Exporter")
    (info / "entry_points.txt").write_text("\n".join((f"[{ENTRY_POINT_GROUP}]", *lines)) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("outside_package")
def test_a_toy_exporter_from_outside_exports_and_runs() -> None:
    assert "toy" in format_names()
    assert "toy_format" not in sys.modules
    recipe = parse_recipe('name = "toy"\n' + RECIPE.format("toy"), "here")
    exporter = exporter_for(recipe.export.formats[1], recipe.export)
    student = make_student()
    data = exporter.export(student, make_metadata())
    images = digit_images(3)
    assert data.startswith(b"TOY")
    assert exporter.read_metadata(data).student_digest == student.proof.student_digest
    np.testing.assert_array_equal(exporter.open(data, fresh_student)(images.numpy()), student.module(images).numpy())


@pytest.mark.usefixtures("outside_package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "toy_format:broken, fails: no such device"),
        ("absent", "nowhere:Exporter, fails: No module named 'nowhere'"),
        ("liar", "calls its format 'toy', not 'liar'"),
    ],
)
def test_a_plugin_that_does_not_work_is_named(name: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        exporter_for(name, ExportConfig())


def test_a_name_that_two_packages_announce_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("twice", f"package{index}:Exporter", ENTRY_POINT_GROUP) for index in range(2)]
    monkeypatch.setattr(
        "ecd_deploy.exporters.registry.entry_points", lambda *, group: entries if group == ENTRY_POINT_GROUP else []
    )
    with pytest.raises(ExportError, match="announced by several packages"):
        exporter_for("twice", ExportConfig())


def test_without_the_plugin_the_recipe_is_refused_with_the_choices() -> None:
    with pytest.raises(RecipeError, match=r"export\.formats: no format 'toy'; there are safetensors, "):
        parse_recipe('name = "toy"\n' + RECIPE.format("toy"), "here")
