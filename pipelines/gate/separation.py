"""Whether what was exported is the student, whole, and nothing else: proof, audit and parity."""

from __future__ import annotations

from typing import Final

from ecd_deploy.errors import ArtefactError
from ecd_deploy.exporters.budget import ParityBudget
from ecd_deploy.measure.latency.measurement import CPU
from ecd_deploy.pipelines.gate.accuracy import drop_checks
from ecd_deploy.pipelines.gate.check import Check, Verdict
from ecd_deploy.pipelines.record.artefacts import ArtefactList, AuditReport
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation, fallen_back
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.split import SplitProof

_PROVIDER: Final = "ExecutionProvider"
"""What the names of onnxruntime's providers end with; other runtimes say their own name and version."""


def checks_of_run(
    config: GateConfig, proof: SplitProof, artefacts: ArtefactList, audit: AuditReport, validation: Validation
) -> list[Check]:
    """Check the proof, and what every artefact of a run contains, gives, and loses against the PyTorch student.

    Raises:
        ArtefactError: other artefacts were validated or audited.
    """
    exported = {artefact.file: artefact.sha256 for artefact in artefacts.artefacts}
    if exported != {entry.file: entry.sha256 for entry in validation.artefacts}:
        raise ArtefactError("the artefacts were exported again after `validate`: run `validate` again")
    return [
        split_check(proof),
        audit_check(artefacts, audit),
        *parity_checks(config, validation),
        *drop_checks(config, validation),
    ]


def split_check(proof: SplitProof) -> Check:
    """Passed where every check of the proof was done and held."""
    checks = proof.checks
    verdict, reason = Verdict.PASS, f"separate from the teacher, {proof.method}"
    if not proof.passed:
        verdict, reason = Verdict.FAIL, f"the student is not separate: {', '.join(checks.failed)}"
    elif checks.not_done:
        undone = "; ".join(f"{name} was not checked: {why}" for name, why in checks.not_done.items())
        verdict, reason = Verdict.INCONCLUSIVE, f"{proof.method}; {undone}"
    return Check(
        name="split proof",
        value=float(checks.total - len(checks.not_done) - len(checks.failed)),
        bound=None,
        limit=float(checks.total),
        unit="",
        verdict=verdict,
        reason=reason,
    )


def audit_check(artefacts: ArtefactList, audit: AuditReport) -> Check:
    """Passed where every tensor of every artefact was traced to the student.

    Raises:
        ArtefactError: other artefacts were audited.
    """
    if {entry.sha256 for entry in audit.audits} != {artefact.sha256 for artefact in artefacts.artefacts}:
        raise ArtefactError("the artefacts are not those that were audited: run `export` again")
    failed = [entry.format for entry in audit.audits if not entry.passed]
    unread = [entry.not_done_reason for entry in audit.audits if entry.not_done_reason is not None]
    passed = len(audit.audits) - len(failed) - len(unread)
    verdict, reason = Verdict.PASS, f"{sum(len(entry.tensors) for entry in audit.audits)} tensors traced to the student"
    if failed:
        verdict, reason = Verdict.FAIL, f"{', '.join(failed)} contain something other than the student"
    elif unread:
        verdict, reason = Verdict.INCONCLUSIVE, "; ".join(unread)
    return Check(
        name="artefact audit",
        value=float(passed),
        bound=None,
        limit=float(len(audit.audits)),
        unit="",
        verdict=verdict,
        reason=reason,
    )


def parity_checks(config: GateConfig, validation: Validation) -> list[Check]:
    """Check the logits of each artefact by its format's budget, or by `max_abs_diff` where it has none."""
    checks = []
    for entry in validation.artefacts:
        problem = entry.parity_problem(config.max_abs_diff)
        limits = [("max_abs_diff", entry.parity.max_abs_diff, config.max_abs_diff)]
        if entry.budget is not None:
            limits = [("relative difference", entry.parity.relative_diff, entry.budget.relative)]
            limits.append(("same class", entry.parity.argmax_agreement, entry.budget.agreement))
        for name, value, limit in limits:
            if limit is None:
                continue
            within = value is not None and (value >= limit if name == "same class" else value <= limit)
            checks.append(
                Check(
                    name=f"{name} {entry.format}",
                    value=value,
                    bound=None,
                    limit=limit,
                    unit="",
                    verdict=Verdict.PASS if within else Verdict.FAIL,
                    reason=f"{entry.parity.images} images{entry.place}" if within else _why(entry, problem),
                )
            )
    return checks


def _why(entry: ArtefactValidation, problem: str | None) -> str:
    divergence = entry.divergence
    where = (
        ""
        if divergence is None
        else f"; first at {divergence.operator} {divergence.node} ({divergence.module or 'the student'})"
    )
    return f"{problem or 'not comparable'}{entry.place}{where}"


def provider_checks(entry: ArtefactValidation, profile: Profile) -> list[Check]:
    """Undecided where latency was measured on another execution provider than parity and accuracy; else nothing."""
    measured, validated = profile.measurement.provider, entry.provider or CPU
    if measured == validated or not measured.endswith(_PROVIDER):
        return []
    reason = (
        f"latency was measured on {measured}, parity and accuracy on {validated}: set profile.provider and run "
        "`validate` and `profile` again; on a device, run.py of a bundle checks all three"
    )
    return [_provider_check(Verdict.INCONCLUSIVE, reason)]


def difference_checks(profile: Profile, budget: ParityBudget) -> list[Check]:
    """Check the scores of a model of any origin on another execution provider by those on the CPU's."""
    measured, limit = profile.measurement, budget.relative
    if (value := measured.provider_difference) is None:
        return []
    verdict = Verdict.PASS if value <= limit else Verdict.FAIL
    reason = f"scores of noise on {measured.provider} against the CPU's{fallen_back(measured.on_cpu)}"
    return [_provider_check(verdict, reason, value, limit)]


def _provider_check(verdict: Verdict, reason: str, value: float | None = None, limit: float | None = None) -> Check:
    return Check(name="provider", value=value, bound=None, limit=limit, unit="", verdict=verdict, reason=reason)
