"""The README is short, and its transcript is what was printed when it was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.split()) <= 900


def test_the_transcript_is_what_was_printed_when_it_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks/results/digits_demo.json").read_text())
    run = result["raw"]["runs"][0]
    assert (run["seed"], run["exit_code"]) == (0, 0)
    (transcript,) = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
    printed = {line.rstrip() for line in run["output"]}
    assert len(transcript.splitlines()) > 10
    assert set(transcript.splitlines()) <= printed
