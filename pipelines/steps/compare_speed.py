"""Whether a smaller or optimised artefact is faster than fp32 ONNX, and so helps."""

from __future__ import annotations

import statistics

from ecd_deploy.measure.latency.measurement import compare_onnx
from ecd_deploy.pipelines.record.validation import Help, Speed
from ecd_deploy.recipe.profile import ProfileConfig

_COMPARED = ProfileConfig(warmup_seconds=0.2, min_seconds=1.0, min_samples=44, max_seconds=30.0)


def compare_speed(model: bytes, fp32: bytes, threads: int, provider: str | None = None) -> Speed:
    """Time an artefact in its own runtime against the fp32 ONNX file in onnxruntime, in turns, one image at a time.

    Both on `provider`, if onnxruntime runs both and it is not to be the CPU's.

    Raises:
        ExportError: one of them does not run.
    """
    comparison = compare_onnx(model, fp32, _COMPARED.model_copy(update={"threads": threads, "provider": provider}))
    own, first, second = (statistics.median(session.block_p50_ms) for session in comparison.sessions)
    return Speed(
        threads=comparison.threads,
        p50_ms=own,
        fp32_p50_ms=first,
        times_fp32=first / own,
        same_file_ratio=first / second,
        contended=comparison.host.contended,
    )


def judge(size: int, fp32_size: int, speed: Speed, problem: str | None, *, must_be_smaller: bool = True) -> Help:
    """Decide whether an artefact helps: it must be right, not slower on this host, and smaller in the same runtime.

    Args:
        size: of the artefact, in bytes.
        fp32_size: of the fp32 ONNX file.
        speed: of the artefact against fp32.
        problem: what is wrong with its logits or its accuracy; None where nothing is.
        must_be_smaller: another runtime may be worth it without.
    """
    found = f"{size / fp32_size:.2f} of the size, {speed.times_fp32:.2f} times the speed of fp32"
    if problem is not None:
        return Help(helps=False, reason=f"{problem}; {found}")
    if must_be_smaller and size >= fp32_size:
        return Help(helps=False, reason=f"not smaller than fp32: {found}")
    if speed.contended:
        return Help(helps=None, reason=f"this host was too busy to time it: {found}")
    if speed.times_fp32 < 1:
        return Help(helps=False, reason=f"slower than fp32 on this host: {found}")
    return Help(helps=True, reason=found)
