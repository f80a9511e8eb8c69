from __future__ import annotations

from pathlib import Path

import pytest

from ecd_deploy.measure.scores.accuracy import PairedTop1, Top1
from ecd_deploy.measure.scores.parity import Parity
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Help, Speed
from ecd_deploy.pipelines.steps.compare_speed import compare_speed, judge
from ecd_deploy.pipelines.steps.validate import _recommended


def speed(times: float, *, contended: bool = False) -> Speed:
    return Speed(
        threads=1, p50_ms=1 / times, fp32_p50_ms=1.0, times_fp32=times, same_file_ratio=1.0, contended=contended
    )


@pytest.mark.parametrize(
    ("size", "found", "problem", "helps", "reason"),
    [
        (30, speed(1.6), None, True, "0.30 of the size, 1.60 times the speed"),
        (100, speed(1.6), None, False, "not smaller than fp32: 1.00 of the size"),
        (30, speed(0.84), None, False, "slower than fp32 on this host: 0.30 of the size, 0.84 times"),
        (30, speed(0.84, contended=True), None, None, "too busy"),
        (30, speed(1.6), "top-1 drops by 3.00%, limit 1.00%", False, "top-1 drops by 3.00%"),
    ],
)
def test_a_file_helps_if_right_smaller_and_not_slower(
    size: int, found: Speed, problem: str | None, helps: bool | None, reason: str
) -> None:
    verdict = judge(size, 100, found, problem)
    assert verdict.helps is helps
    assert reason in verdict.reason


def test_another_runtime_may_help_without_being_smaller() -> None:
    assert judge(100, 100, speed(1.6), None, must_be_smaller=False).helps is True
    assert judge(30, 100, speed(0.84), None, must_be_smaller=False).helps is False


def artefact(name: str, times: float, helps: bool | None) -> ArtefactValidation:
    same = Parity(images=1, expected_shape=(1, 2), found_shape=(1, 2), max_abs_diff=0.0, argmax_agreement=1.0)
    counted = PairedTop1(reference=Top1(correct=1, images=1), candidate=Top1(correct=1, images=1), lost=0, gained=0)
    return ArtefactValidation(
        format=name,
        file=name,
        sha256="",
        parity=same,
        top1=counted,
        speed=speed(times),
        help=Help(helps=helps, reason=""),
    )


def test_recommended_is_the_fastest_that_helps_or_fp32() -> None:
    plain = artefact("onnx", 1, None).model_copy(update={"speed": None, "help": None})
    slow, fast = artefact("onnx-fp16", 1.1, True), artefact("onnx-int8", 1.6, True)
    harmful, undecided = artefact("ort", 3, False), artefact("other", 3, None)
    assert _recommended((plain, slow, fast, harmful, undecided)) == "onnx-int8"
    assert _recommended((plain, harmful, undecided)) == "onnx"


def test_a_file_of_another_runtime_is_timed_by_that(finished_run: tuple[Path, object]) -> None:
    scripted, plain = (
        (finished_run[0] / "exports" / name).read_bytes() for name in ("student.torchscript.pt", "student.onnx")
    )
    found = compare_speed(scripted, plain, 1)
    assert 0 < found.times_fp32 < 1  # on images of 8 pixels nearly all of it is the interpreter of TorchScript


def test_a_file_is_about_as_fast_as_itself(finished_run: tuple[Path, object]) -> None:
    model = (finished_run[0] / "exports/student.onnx").read_bytes()
    found = compare_speed(model, model, 1)
    assert 0.5 < found.times_fp32 < 2
    assert found.threads == 1
