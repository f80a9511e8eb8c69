"""Does a smaller or optimised file help? And which file is the one to ship."""

from __future__ import annotations

import statistics

from pydantic import BaseModel, ConfigDict

from ecd_deploy.gate_config import ProfileConfig
from ecd_deploy.measure.latency import compare_onnx

_COMPARED = ProfileConfig(warmup_seconds=0.2, min_seconds=1.0, min_samples=44, max_seconds=30.0)


class Speed(BaseModel):
    """Latency of an artefact and of the fp32 ONNX file, in random blocks by one process on this host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int
    p50_ms: float
    """Median over the blocks."""
    fp32_p50_ms: float
    times_fp32: float
    """How many times as fast as fp32: above 1 is faster."""
    same_file_ratio: float
    """The same of two sessions of the fp32 file: how far from 1 chance alone gets."""
    contended: bool


class Help(BaseModel):
    """Whether an artefact is better than the fp32 ONNX file, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    helps: bool | None
    """None where this host was too busy to tell."""
    reason: str

    def words(self) -> str:
        """The verdict for people."""
        return {True: "helps", False: "does not help", None: "undecided"}[self.helps]


def compare_speed(model: bytes, fp32: bytes, threads: int) -> Speed:
    """Time an artefact against the fp32 file, one image at a time.

    Raises:
        ExportError: one of them does not run.
    """
    comparison = compare_onnx(model, fp32, _COMPARED.model_copy(update={"threads": threads}))
    own, first, second = (statistics.median(session.block_p50_ms) for session in comparison.sessions)
    return Speed(
        threads=comparison.threads,
        p50_ms=own,
        fp32_p50_ms=first,
        times_fp32=first / own,
        same_file_ratio=first / second,
        contended=comparison.host.contended,
    )


def judge(size: int, fp32_size: int, speed: Speed, problem: str | None) -> Help:
    """Decide whether an artefact helps: it must be right, smaller, and not slower on this host.

    Args:
        size: of the artefact, in bytes.
        fp32_size: of the fp32 ONNX file.
        speed: of the artefact against fp32.
        problem: what is wrong with its logits or its accuracy; None where nothing is.
    """
    found = f"{size / fp32_size:.2f} of the size, {speed.times_fp32:.2f} times the speed of fp32"
    if problem is not None:
        return Help(helps=False, reason=f"{problem}; {found}")
    if size >= fp32_size:
        return Help(helps=False, reason=f"not smaller than fp32: {found}")
    if speed.contended:
        return Help(helps=None, reason=f"this host was too busy to time it: {found}")
    if speed.times_fp32 < 1:
        return Help(helps=False, reason=f"slower than fp32 on this host: {found}")
    return Help(helps=True, reason=found)
