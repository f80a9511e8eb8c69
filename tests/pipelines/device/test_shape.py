"""`profile --shape`, for a model that leaves height and width of its images free."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.pipelines.evaluate.colours import write_model

FREE = ("h", "w")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_free_sides_are_given(tmp_path: Path, layout: str) -> None:
    write_model(tmp_path / "model.onnx", sides=FREE, layout=layout)
    ended = run_command(["profile", "model.onnx", "--shape", "6x9", "--json", "found.json"], cwd=tmp_path)
    assert ended.code in {0, 3}, ended.err
    assert json.loads((tmp_path / "found.json").read_text())["file"] == "model.onnx"


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ({"sides": FREE}, (), "give --shape HEIGHTxWIDTH"),
        ({"sides": FREE}, ("--shape", "6"), "expected HEIGHTxWIDTH"),
        ({"sides": FREE}, ("--shape", "0x6"), "expected HEIGHTxWIDTH"),
        ({"sides": (8, "w")}, ("--shape", "6x9"), "is not the model's height and width"),
        ({"second_input": True}, ("--shape", "8x8"), "one input, images"),
    ],
    ids=["absent", "one", "zero", "other", "two-inputs"],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, model: dict[str, object], shape: tuple[str, ...], message: str
) -> None:
    write_model(tmp_path / "model.onnx", **model)  # type: ignore[arg-type]
    ended = run_command(["profile", "model.onnx", *shape, "--json", "found.json"], cwd=tmp_path)
    assert (ended.code, message in ended.err) == (2, True), ended.err
    assert not (tmp_path / "found.json").exists()
