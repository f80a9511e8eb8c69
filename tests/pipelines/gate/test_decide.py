from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import ArtefactError, DigestError, RunDirectoryError
from ecd_deploy.exporters import ParityBudget
from ecd_deploy.exporters.audit.results import ArtefactAudit
from ecd_deploy.exporters.divergence.result import Divergence
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.latency.measurement import Latency, Percentile
from ecd_deploy.measure.scores.accuracy import PairedTop1, Top1
from ecd_deploy.measure.scores.parity import Parity
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.gate.decide import Check, GateReport, Verdict, gate, read_evidence
from ecd_deploy.pipelines.record.artefacts import Artefact, ArtefactList, AuditReport
from ecd_deploy.pipelines.record.names import (
    ARTEFACTS_NAME,
    AUDIT_NAME,
    GATE_NAME,
    PROFILE_NAME,
    SPLIT_NAME,
    VALIDATION_NAME,
)
from ecd_deploy.pipelines.record.predictions import StoredPredictions, write_predictions
from ecd_deploy.pipelines.record.run_directory import RunDirectory, create_run
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from ecd_deploy.split import SplitProof, split_student
from tests.measure.scored_images import with_right
from tests.pipelines.profiles import profiled

ONNX = "exports/student.onnx"
LIMITS = (
    "gate.min_top1=0.9",
    "gate.max_drop=0.01",
    "gate.max_abs_diff=1e-4",
    "gate.p90_ms_max=2.0",
    "gate.max_size_mb=0.001",
)


@pytest.fixture(scope="module")
def proof() -> SplitProof:
    torch.manual_seed(0)
    factory = partial(build_student, "resnet8", num_classes=10, in_channels=1)
    return split_student(PlainModel(factory()), torch.randn(4, 1, 8, 8), factory=factory).proof


def parity(difference: float | None = 1e-6) -> Parity:
    bad = 2 if difference is None else None
    return Parity(
        images=500,
        expected_shape=(500, 10),
        found_shape=(500, 10),
        max_abs_diff=difference,
        argmax_agreement=None if difference is None else 1.0,
        first_bad_image=bad,
    )


def paired(correct: int = 490, lost: int = 0, gained: int = 0, images: int = 500) -> PairedTop1:
    return PairedTop1(
        reference=Top1(correct=correct + lost - gained, images=images),
        candidate=Top1(correct=correct, images=images),
        lost=lost,
        gained=gained,
    )


def latency(p90: float | None = 1.0, bound: float | None = 1.1, *, contended: bool = False) -> Latency:
    return Latency(
        threads=1,
        batch_size=1,
        load_ms=1.0,
        first_run_ms=1.0,
        percentiles=(Percentile(fraction=0.9, value_ms=p90, upper_bound_ms=bound, samples_needed=44),),
        cpu_over_wall=0.5 if contended else 1.0,
        involuntary_switches=0,
        contended=contended,
        samples_ms=(1.0,),
    )


def audited(*artefacts: Artefact, findings: tuple[str, ...] = (), unread: str | None = None) -> AuditReport:
    audits = (
        ArtefactAudit(
            format=artefact.format,
            sha256=artefact.sha256,
            bytes=artefact.bytes,
            passed=not findings,
            findings=findings,
            not_done_reason=unread,
        )
        for artefact in artefacts
    )
    return AuditReport(student_digest="a", audits=tuple(audits))


class MeasuredRun:
    """A run directory whose results are chosen by the test."""

    def __init__(self, directory: RunDirectory, proof: SplitProof) -> None:
        self.directory = directory
        self.proof = proof

    def decide(
        self,
        *,
        parity: Parity = parity(),  # noqa: B008 - frozen
        paired: PairedTop1 = paired(),  # noqa: B008
        latency: Latency = latency(),  # noqa: B008
        size: int = 500,
        others: tuple[ArtefactValidation, ...] = (),
    ) -> GateReport:
        entry = self.directory.write(ONNX, bytes(size))
        artefact = Artefact(format="onnx", file=ONNX, sha256=entry.sha256, bytes=entry.bytes)
        exported = [artefact]
        for other in others:
            written = self.directory.write(other.file, b"other")
            exported.append(Artefact(format=other.format, file=other.file, sha256=written.sha256, bytes=written.bytes))
        digest = self.proof.student_digest
        artefacts = ArtefactList(student_digest=digest, image_shape=(1, 8, 8), artefacts=tuple(exported))
        validated = ArtefactValidation(format="onnx", file=ONNX, sha256=entry.sha256, parity=parity, top1=paired)
        self.directory.write_json(SPLIT_NAME, self.proof)
        self.directory.write_json(AUDIT_NAME, audited(*exported))
        self.directory.write_json(ARTEFACTS_NAME, artefacts)
        right, images = paired.candidate.correct, paired.candidate.images
        of_class = [len(range(index, images, 10)) for index in range(10)]
        scores = with_right([len(range(index, right, 10)) for index in range(10)], of_class)
        stored = StoredPredictions(scores.probabilities, scores.labels, scores.classes, test_digest="d")
        write_predictions(self.directory, {"onnx": stored})
        self.directory.write_json(
            VALIDATION_NAME,
            Validation(artefacts=(validated, *others), onnx_top1=paired, batch_size=1, overlapping_test_images=0),
        )
        self.directory.write_json(PROFILE_NAME, profiled(ONNX, entry.sha256, latency))
        return gate(self.directory, read_evidence(self.directory))


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("digits", LIMITS)


@pytest.fixture
def measured(tmp_path: Path, recipe: Recipe, proof: SplitProof) -> Iterator[MeasuredRun]:
    with create_run(tmp_path / "run", recipe, resume=False) as directory:
        yield MeasuredRun(directory, proof)


def check(report: GateReport, name: str) -> Check:
    return next(entry for entry in report.checks if entry.name == name)


def test_all_limits_met_is_a_pass_and_is_written(measured: MeasuredRun) -> None:
    report = measured.decide()
    assert report.verdict is Verdict.PASS
    assert [entry.name for entry in report.checks] == [
        "split proof",
        "artefact audit",
        "max_abs_diff onnx",
        "max_drop",
        "min_top1",
        "p90_ms_max",
        "max_size_mb",
    ]
    assert report.not_limited == ()
    assert measured.directory.read_json(GATE_NAME, GateReport) == report


@pytest.mark.parametrize(
    ("name", "results", "verdict"),
    [
        ("min_top1", {"paired": paired(440)}, Verdict.FAIL),
        ("min_top1", {"paired": paired(455)}, Verdict.INCONCLUSIVE),
        ("min_top1", {"paired": paired(10, images=10)}, Verdict.INCONCLUSIVE),
        ("max_drop", {"paired": paired(480, lost=12)}, Verdict.FAIL),
        ("max_drop", {"paired": paired(480, lost=3)}, Verdict.INCONCLUSIVE),
        ("max_drop", {"paired": paired(480, gained=3)}, Verdict.PASS),
        ("max_abs_diff onnx", {"parity": parity(2e-4)}, Verdict.FAIL),
        ("max_abs_diff onnx", {"parity": parity(None)}, Verdict.FAIL),
        ("p90_ms_max", {"latency": latency(3.0, 3.1)}, Verdict.FAIL),
        ("p90_ms_max", {"latency": latency(1.9, 2.1)}, Verdict.INCONCLUSIVE),
        ("p90_ms_max", {"latency": latency(None, None)}, Verdict.INCONCLUSIVE),
        ("p90_ms_max", {"latency": latency(1.0, 1.1, contended=True)}, Verdict.INCONCLUSIVE),
        ("p90_ms_max", {"latency": latency(9.0, 9.1, contended=True)}, Verdict.INCONCLUSIVE),
        ("max_size_mb", {"size": 1_001}, Verdict.FAIL),
        ("max_size_mb", {"size": 1_000}, Verdict.PASS),
    ],
)
def test_each_limit(measured: MeasuredRun, name: str, results: dict[str, object], verdict: Verdict) -> None:
    report = measured.decide(**results)  # type: ignore[arg-type]
    assert check(report, name).verdict is verdict
    assert report.verdict is verdict


def int8(relative: float = 0.1, agreement: float = 0.99, lost: int = 0) -> ArtefactValidation:
    found = parity().model_copy(
        update={"max_abs_diff": 10 * relative, "largest_logit": 10.0, "argmax_agreement": agreement}
    )
    return ArtefactValidation(
        format="onnx-int8",
        file="exports/student.int8.onnx",
        sha256=sha256_bytes(b"other"),
        parity=found,
        budget=ParityBudget(relative=0.5, agreement=0.9),
        divergence=Divergence(
            node="node_Conv_3_quant", operator="QLinearConv", module="layer1.0", relative_error=0.7, nodes_compared=3
        ),
        top1=paired(490 - lost, lost=lost),
    )


@pytest.mark.parametrize(
    ("artefact", "name", "verdict"),
    [
        (int8(), "relative difference onnx-int8", Verdict.PASS),
        (int8(relative=0.6), "relative difference onnx-int8", Verdict.FAIL),
        (int8(agreement=0.8), "same class onnx-int8", Verdict.FAIL),
        (int8(), "max_drop onnx-int8", Verdict.PASS),
        (int8(lost=4), "max_drop onnx-int8", Verdict.INCONCLUSIVE),
        (int8(lost=20), "max_drop onnx-int8", Verdict.FAIL),
    ],
)
def test_a_quantised_artefact_has_its_own_budget_and_drop(
    measured: MeasuredRun, artefact: ArtefactValidation, name: str, verdict: Verdict
) -> None:
    report = measured.decide(others=(artefact,))
    assert check(report, name).verdict is verdict
    assert report.verdict is verdict


def test_the_layer_that_departs_is_named(measured: MeasuredRun) -> None:
    report = measured.decide(others=(int8(relative=0.6),))
    reason = check(report, "relative difference onnx-int8").reason
    assert "60.0% of the largest, limit 50%" in reason
    assert "first at QLinearConv node_Conv_3_quant (layer1.0)" in reason


def test_a_failure_outweighs_an_undecided_limit(measured: MeasuredRun) -> None:
    report = measured.decide(paired=paired(455), size=2_000)
    assert report.verdict is Verdict.FAIL


def test_a_logit_that_is_not_finite_is_named(measured: MeasuredRun) -> None:
    report = measured.decide(parity=parity(None))
    assert "image 2" in check(report, "max_abs_diff onnx").reason


def test_a_limit_that_is_not_set_is_said(tmp_path: Path, proof: SplitProof) -> None:
    recipe = load_recipe("cifar100-resnet20")
    with create_run(tmp_path / "run", recipe, resume=False) as directory:
        report = MeasuredRun(directory, proof).decide()
    assert report.not_limited == ("min_top1", "p90_ms_max")


def test_a_changed_artefact_is_refused(measured: MeasuredRun) -> None:
    measured.decide()
    (measured.directory.root / ONNX).write_bytes(b"\x01" + bytes(499))
    with pytest.raises(DigestError, match=r"student\.onnx was changed"):
        gate(measured.directory, read_evidence(measured.directory))


@pytest.mark.parametrize(
    ("findings", "unread", "verdict"),
    [(("spare comes from no tensor",), None, Verdict.FAIL), ((), "no reader", Verdict.INCONCLUSIVE)],
)
def test_the_audit_decides(
    measured: MeasuredRun, findings: tuple[str, ...], unread: str | None, verdict: Verdict
) -> None:
    measured.decide()
    evidence = read_evidence(measured.directory)
    audit = audited(evidence.artefacts.find("onnx"), findings=findings, unread=unread)
    report = gate(measured.directory, replace(evidence, audit=audit))
    assert check(report, "artefact audit").verdict is verdict
    assert report.verdict is verdict


def test_a_check_of_the_split_that_was_not_done_is_no_pass(measured: MeasuredRun) -> None:
    measured.decide()
    evidence = read_evidence(measured.directory)
    done = check(gate(measured.directory, evidence), "split proof")
    assert done.value == done.limit
    assert done.reason == "separate from the teacher, by construction"
    checks = evidence.proof.checks
    graph = checks.graph.model_copy(update={"not_done_reason": "torch.export cannot express Student"})
    proof = evidence.proof.model_copy(update={"checks": checks.model_copy(update={"graph": graph})})
    found = check(gate(measured.directory, replace(evidence, proof=proof)), "split proof")
    assert (found.value, found.limit, found.verdict) == (checks.total - 1, checks.total, Verdict.INCONCLUSIVE)
    assert found.reason == "by construction; graph was not checked: torch.export cannot express Student"


def test_an_artefact_that_was_not_audited_is_refused(measured: MeasuredRun) -> None:
    measured.decide()
    evidence = read_evidence(measured.directory)
    other = evidence.artefacts.find("onnx").model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ArtefactError, match="not those that were audited"):
        gate(measured.directory, replace(evidence, audit=audited(other)))


def test_an_artefact_exported_after_validation_is_refused(measured: MeasuredRun) -> None:
    measured.decide()
    entry = measured.directory.write(ONNX, b"new")
    artefact = Artefact(format="onnx", file=ONNX, sha256=entry.sha256, bytes=entry.bytes)
    measured.directory.write_json(
        ARTEFACTS_NAME,
        ArtefactList(student_digest=measured.proof.student_digest, image_shape=(1, 8, 8), artefacts=(artefact,)),
    )
    with pytest.raises(RunDirectoryError, match="run `ecd-deploy validate"):
        read_evidence(measured.directory)


def test_a_run_that_was_not_measured_is_never_passed(tmp_path: Path, recipe: Recipe) -> None:
    with (
        create_run(tmp_path / "run", recipe, resume=False) as directory,
        pytest.raises(RunDirectoryError, match="ecd-deploy validate"),
    ):
        gate(directory, read_evidence(directory))


def test_default_profile_takes_enough_samples_for_p99() -> None:
    assert ProfileConfig().min_samples >= 459
