from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.check import NOMINAL_SECONDS, CheckOptions, check, deadlines
from benchmarks.gpu.parts import Findings, PartName, PartRun
from ecd_deploy.errors import UsageError

ROOT = Path(__file__).parents[3]


class Counted(Findings):
    """Findings of a part that counts."""

    count: int
    wanted: int = 2

    def faults(self) -> tuple[str, ...]:
        return () if self.count == self.wanted else (f"{self.count} is not {self.wanted}",)

    def summary(self) -> tuple[str, ...]:
        return (f"counted {self.count}",)


def _options(out: Path) -> CheckOptions:
    return CheckOptions(parts=("correctness", "speed"), seconds=10, out=out, data=out, tiny=True)


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_a_part_that_fails_is_recorded_with_what_it_had_found_and_the_others_go_on(tmp_path: Path) -> None:
    def fail(run: PartRun) -> Findings:
        run.keep(Counted(count=1))
        raise RuntimeError("the kernel is gone")

    records = check(_options(tmp_path), {"correctness": fail, "speed": lambda _: Counted(count=2)})
    assert [bool(record.faults) for record in records] == [True, False]
    assert records[0].faults == ("RuntimeError: the kernel is gone", "1 is not 2")
    failed, passed = (_read(tmp_path / f"{part}.json") for part in ("correctness", "speed"))
    assert "the kernel is gone" in failed["error"]
    assert failed["findings"] == {"count": 1, "wanted": 2}
    assert (passed["error"], passed["findings"]["count"], passed["finished"]) == (None, 2, True)


def test_what_is_known_is_written_while_the_part_still_works(tmp_path: Path) -> None:
    seen = []

    def work(run: PartRun) -> Findings:
        run.keep(Counted(count=1))
        seen.append(_read(tmp_path / "speed.json"))
        return Counted(count=2)

    check(_options(tmp_path), {"speed": work})
    assert [(document["finished"], document["findings"]["count"]) for document in seen] == [(False, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]


def test_findings_with_faults_fail_the_part(tmp_path: Path) -> None:
    (record,) = check(_options(tmp_path), {"speed": lambda _: Counted(count=3)})
    assert record.faults == ("3 is not 2",)


def test_parts_end_when_they_are_meant_to_and_earlier_where_time_is_short() -> None:
    checks: tuple[PartName, ...] = ("correctness", "engine", "speed")
    assert deadlines(checks, 600)["speed"] == 230
    assert deadlines((*checks, "few"), 500)["few"] == 480
    assert deadlines((*checks, "few"), 240)["speed"] == 115
    assert deadlines(("few", "full"), 1000) == {"few": 250, "full": 1000}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_only_the_rehearsal(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--tiny"):
        check(CheckOptions(parts=("speed",), seconds=10, out=tmp_path, data=tmp_path))


def _command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    ended = _command("check", "--tiny", "--parts", "few,fast", "--out", tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no part fast; choices are correctness, engine, speed, few, full" in ended.stderr


def test_the_evidence_is_gathered_and_steps_are_timed_without_a_gpu(tmp_path: Path) -> None:
    records = check(CheckOptions(parts=("speed", "few"), seconds=60, out=tmp_path, data=tmp_path, tiny=True))
    assert [record.faults for record in records] == [(), ()]
    speed, few = (_read(tmp_path / f"{part}.json")["findings"] for part in ("speed", "few"))
    assert len(speed["timings"]) == speed["planned"]
    # both arms of a seed start from the same student, so what differs is the method
    (first, second), schedule = few["seeds"], few["schedule"]
    assert [arm["arm"] for arm in first["arms"]] == schedule["arms"]
    assert first["arms"][0]["student_loss"] != second["arms"][0]["student_loss"]
    assert few["recipe"]["train"]["epochs"] == schedule["epochs"] == len(first["arms"][0]["student_loss"])


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_every_part_is_rehearsed_without_a_gpu(tmp_path: Path) -> None:
    ended = _command("check", "--tiny", "--seconds", "240", "--out", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for part in NOMINAL_SECONDS:
        assert f"{part:12} passed" in ended.stdout
        document = _read(tmp_path / f"{part}.json")
        assert document["finished"]
        assert document["tiny"]
    few = _read(tmp_path / "few.json")["findings"]
    assert len(few["seeds"]) == few["schedule"]["seeds"]
    engine = _read(tmp_path / "engine.json")["findings"]
    assert engine["resumed"]["differing"] == []
    assert engine["resumed"]["killed_after"] >= 4
    assert [run["device"] for run in engine["runs"]] == ["cpu", "cpu"]
    speed = _read(tmp_path / "speed.json")["findings"]
    assert "ecd_triton" in {timing["candidate"] for timing in speed["timings"]}
