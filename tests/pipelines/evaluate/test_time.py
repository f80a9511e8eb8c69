"""A model that does not end: it is left after a while, and a signal ends the command at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ecd_deploy.errors import ArtefactError
from ecd_deploy.exporters.onnx.file import read_onnx_file
from ecd_deploy.measure.predictors.untrusted import Limits
from ecd_deploy.pipelines.evaluate import classifier as running
from ecd_deploy.pipelines.evaluate.classifier import Classifier, open_classifier
from ecd_deploy.pipelines.evaluate.expectation import expect
from ecd_deploy.recipe.input import InputConfig
from tests.pipelines.evaluate.colours import save_images, write_model


def hang_above(path: Path, batch: int) -> Path:
    """Make the model loop without an end for batches of more images than this."""
    model = onnx.load(write_model(path))
    graph = model.graph
    kept_in, kept_out = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("in", "out"))
    sums = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("s", "t")]
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    nodes = [helper.make_node("Identity", ["in"], ["out"]), helper.make_node("Sin", ["s"], ["t"])]
    body = helper.make_graph(nodes, "body", [count, kept_in, sums[0]], [kept_out, sums[1]])
    constants = {"zero": np.array([0]), "most": np.array([batch]), "one": np.array(True), "long": np.array([10**15])}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node[-1].output[0] = "ended"
    graph.node.extend(
        [
            helper.make_node("Shape", ["pixels"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["images"]),
            helper.make_node("Greater", ["images", "most"], ["many"]),
            helper.make_node("Cast", ["many"], ["many_as_number"], to=TensorProto.INT64),
            helper.make_node("Mul", ["many_as_number", "long"], ["turns"]),
            helper.make_node("Loop", ["turns", "one", "ended"], ["scores"], body=body),
        ]
    )
    path.write_bytes(model.SerializeToString())
    return path


def opened(path: Path, *, most: int) -> Classifier:
    file = read_onnx_file(path)
    return open_classifier(file, expect(file, InputConfig(mean=(0.5,) * 3, std=(0.5,) * 3)), most=most)


def test_a_model_is_tried_with_the_batch_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_LIMITS", Limits(seconds=4))
    with pytest.raises(ArtefactError, match="does not finish within 4 s"):
        opened(hang_above(tmp_path / "model.onnx", 2), most=20)


def test_a_run_without_an_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = opened(hang_above(tmp_path / "model.onnx", 2), most=2)
    monkeypatch.setattr(running, "SECONDS_OF_A_BATCH", 1)
    with pytest.raises(ArtefactError, match=r"does not finish 3 image\(s\) within 1 s"):
        classifier.scores(np.zeros((3, 3, 8, 8), dtype=np.float32))


def test_a_signal_ends_a_run(tmp_path: Path) -> None:
    classifier = opened(hang_above(tmp_path / "model.onnx", 2), most=2)

    def stop(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(1)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            classifier.scores(np.zeros((3, 3, 8, 8), dtype=np.float32))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 30


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if stat.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(stat.parent.name))
    return found


def test_a_signal_ends_the_trial_in_another_process(tmp_path: Path) -> None:
    hang_above(tmp_path / "model.onnx", 0)
    save_images(tmp_path / "images", each=2)
    command = [
        sys.executable,
        "-m",
        "ecd_deploy",
        "evaluate",
        "model.onnx",
        "--data",
        "images",
        "--set",
        "input.mean=[0.5, 0.5, 0.5]",
        "--set",
        "input.std=[0.5, 0.5, 0.5]",
    ]
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ, stderr=subprocess.PIPE, text=True) as running_one:
        while running_one.poll() is None and not (children := children_of(running_one.pid)):
            time.sleep(0.1)
        running_one.send_signal(signal.SIGTERM)
        assert running_one.wait(30) == 143
    assert not any(Path(f"/proc/{child}").exists() for child in children)
