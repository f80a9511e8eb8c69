"""Limits on latency and memory, by what `profile` measured at the place that they hold for."""

from __future__ import annotations

from ecd_deploy.pipelines.gate.check import Check, Verdict, undecided
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.recipe.gate import GateConfig


def latency_checks(config: GateConfig, profile: Profile, device: str | None) -> list[Check]:
    """Check tail percentiles by their upper bounds, and the peak memory.

    Args:
        config: the limits.
        profile: what was measured.
        device: the device that the limits hold for; None for wherever it was measured.
    """
    limits = ((0.9, "p90_ms_max"), (0.95, "p95_ms_max"), (0.99, "p99_ms_max"))
    given = [(fraction, name, getattr(config, name)) for fraction, name in limits]
    checks = [
        _elsewhere(name, limit, "ms", profile, device) or _tail_check(name, fraction, limit, profile)
        for fraction, name, limit in given
        if limit is not None
    ]
    if config.peak_memory_mb_max is not None:
        name, limit = "peak_memory_mb_max", config.peak_memory_mb_max
        value = profile.measurement.cold_start.peak_memory_mb
        checks.append(_elsewhere(name, limit, "MB", profile, device) or _memory_check(name, limit, value))
    return checks


def _memory_check(name: str, limit: float, value: float | None) -> Check:
    if value is None:
        return undecided(name, limit, "MB", "the system where it was measured does not say")
    verdict = Verdict.PASS if value <= limit else Verdict.FAIL
    reason = "a fresh process with Python and onnxruntime"
    return Check(name=name, value=value, bound=None, limit=limit, unit="MB", verdict=verdict, reason=reason)


def _elsewhere(name: str, limit: float, unit: str, profile: Profile, device: str | None) -> Check | None:
    if device is None or profile.place == device:
        return None
    reason = f"measured on the {profile.place}, not on {device}: ecd-deploy profile --device {device} --host"
    return undecided(name, limit, unit, reason)


def _tail_check(name: str, fraction: float, limit: float, profile: Profile) -> Check:
    latency = profile.latency
    entry = latency.at(fraction)
    samples = f"{len(latency.samples_ms)} samples, {latency.threads} thread(s)"
    if latency.contended:
        verdict = Verdict.INCONCLUSIVE
        reason = f"contended: {'; '.join(latency.reasons) or 'the host was busy'}"
    elif entry.value_ms is None or entry.upper_bound_ms is None:
        verdict = Verdict.INCONCLUSIVE
        reason = f"{len(latency.samples_ms)} samples, {entry.samples_needed} needed"
    elif entry.upper_bound_ms <= limit:
        verdict, reason = Verdict.PASS, samples
    elif entry.value_ms <= limit:
        verdict, reason = Verdict.INCONCLUSIVE, "the upper bound exceeds the limit"
    else:
        verdict, reason = Verdict.FAIL, samples
    return Check(
        name=name,
        value=entry.value_ms,
        bound=entry.upper_bound_ms,
        limit=limit,
        unit="ms",
        verdict=verdict,
        reason=reason,
    )
