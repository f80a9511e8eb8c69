"""A format of another package: found by its entry point, without a change here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from ecd_deploy.errors import ExportError, RecipeError
from ecd_deploy.exporters import export_formats, exporter_for
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.export import ENTRY_POINT_GROUP, ExportConfig, format_names
from ecd_deploy.recipe.recipe import parse_recipe
from ecd_deploy.split import SplitStudent
from tests.exporters.conftest import Exported, export_format, fresh_student, make_config, make_context, make_metadata
from tests.plugin import install_plugin
from tests.small import digit_images

MORE = """

class Packed(NpzExporter):
    format, filename, derived_from = "packed", "student.packed", "onnx-int8"

    def export(self, given):
        return b"packed" + given.source


class One(NpzExporter):
    format, derived_from = "one", "other"


class Other(NpzExporter):
    format, derived_from = "other", "one"


class Namesake(NpzExporter):
    format, filename = "namesake", "student.onnx"


class Unfinished:
    format = "unfinished"

    def __init__(self, config):
        pass


def broken(config):
    raise RuntimeError("no such device")
"""
ENTRIES = {
    "packed": "npz_format:Packed",
    "one": "npz_format:One",
    "other": "npz_format:Other",
    "namesake": "npz_format:Namesake",
    "unfinished": "npz_format:Unfinished",
    "broken": "npz_format:broken",
    "liar": "npz_format:NpzExporter",
    "absent": "nowhere:Exporter",
}
RECIPE = '[data]\nsource = "digits"\n[student]\nname = "resnet8"\n[export]\nformats = ["onnx", "{}"]\n'


@pytest.fixture
def outside_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = install_plugin(tmp_path, ENTRIES)
    module.write_text(module.read_text() + MORE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("npz_format", None)


@pytest.mark.usefixtures("outside_package")
def test_a_format_from_outside_exports_and_runs(student: SplitStudent) -> None:
    assert "npz" in format_names()
    recipe = parse_recipe('name = "toy"\n' + RECIPE.format("npz"), "here")
    assert "npz_format" not in sys.modules
    written = export_format("npz", recipe.export, student, make_metadata())
    images = digit_images(3)
    assert written.exporter.read_metadata(written.data).student_digest == student.proof.student_digest
    found = written.exporter.open(written.data, fresh_student)(images.numpy())
    np.testing.assert_array_equal(found, student.module(images).numpy())
    for data in (b"", b"PK", written.data[: len(written.data) // 2]):
        with pytest.raises(ExportError):
            written.exporter.open(data, fresh_student)


@pytest.mark.usefixtures("outside_package")
def test_what_it_is_made_from_is_made_in_memory(artefacts: dict[str, Exported]) -> None:
    exported = artefacts["onnx"]
    names = ("packed", "onnx")
    packed, onnx = export_formats(names, make_config(), exported.student, exported.metadata, make_context())
    assert (packed.exporter.format, onnx.exporter.format) == names
    assert packed.data == b"packed" + artefacts["onnx-int8"].data
    assert packed.derived_from == sha256_bytes(artefacts["onnx-int8"].data)
    assert (onnx.data, onnx.derived_from) == (exported.data, None)


@pytest.mark.usefixtures("outside_package")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("one", "onnx"), "no format can be made from itself: one from other from one"),
        (("onnx", "namesake"), r"formats onnx and namesake both call their file student\.onnx"),
    ],
)
def test_formats_that_do_not_go_together_are_refused_before_any_is_written(
    student: SplitStudent, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        next(export_formats(names, ExportConfig(), student, make_metadata()))


@pytest.mark.usefixtures("outside_package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "npz_format:broken, fails: no such device"),
        ("absent", "nowhere:Exporter, fails: No module named 'nowhere'"),
        ("liar", "calls its format 'npz', not 'liar'"),
        ("unfinished", "lacks filename, runtime, budget, derived_from, export, open, read_metadata, contents"),
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
    with pytest.raises(RecipeError, match=r"export\.formats: no format 'npz'; there are safetensors, "):
        parse_recipe('name = "toy"\n' + RECIPE.format("npz"), "here")
