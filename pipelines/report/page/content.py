"""What a report says, section by section, before it is Markdown or HTML."""

from __future__ import annotations

from collections.abc import Sequence

from ecd_deploy.measure.latency.steadiness import why_unsteady
from ecd_deploy.pipelines.gate.check import Check, Verdict
from ecd_deploy.pipelines.gate.ci import baseline_sentences
from ecd_deploy.pipelines.gate.decide import GateReport
from ecd_deploy.pipelines.record.names import RECIPE_NAME
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.report.page.calibration import calibration_section
from ecd_deploy.pipelines.report.page.classes import class_section
from ecd_deploy.pipelines.report.page.comparison import comparison_section
from ecd_deploy.pipelines.report.page.page import Page
from ecd_deploy.pipelines.report.page.samples import sample_section
from ecd_deploy.pipelines.report.page.section import Cell, Section, Table, accuracy_cells
from ecd_deploy.pipelines.report.results import NamedRun, RunResults
from ecd_deploy.pipelines.report.words import (
    DEPLOYED_EPOCH,
    NO_VALIDATION,
    describe_overlap,
    describe_proof,
    format_number,
)
from ecd_deploy.recipe.export import UNVERIFIED_FORMATS
from ecd_deploy.training import EpochScore

_SLOWEST_LAYERS = 40


def run_page(results: RunResults, others: Sequence[NamedRun] = ()) -> Page:
    """What is said of a run, without the figures of the HTML page; other runs are set beside this one."""
    recipe = results.recipe
    trained = f"{recipe.student.name}, trained with `{recipe.method.name}` for {results.training.epochs} epochs."
    return Page(
        name=recipe.name,
        verdict=results.gate.verdict.value,
        lead_in=f"{trained} {recipe.description}".strip(),
        sections=_sections(results, others),
    )


def _sections(results: RunResults, others: Sequence[NamedRun]) -> tuple[Section, ...]:
    samples = () if results.test_images is None else (sample_section(results.test_images, results.predictions),)
    return (
        *why_sections(results.gate),
        gate_section(results.gate),
        *((comparison_section(results, others),) if others else ()),
        _accuracy(results),
        class_section(results.predictions, results.shipped.file),
        calibration_section(results.predictions),
        *samples,
        _training(results),
        _artefacts(results),
        latency_section(results.profile),
        layer_section(results.profile),
        _split(results),
        _environment(results),
    )


def why_sections(gate: GateReport) -> tuple[Section, ...]:
    """What kept the gate from passing; nothing where it passed."""
    titles = {Verdict.FAIL: "Why it fails", Verdict.INCONCLUSIVE: "Why it is inconclusive"}
    if gate.verdict not in titles:
        return ()
    points = tuple(_said(check) for kind in titles for check in gate.checks if check.verdict is kind)
    return (Section("why", titles[gate.verdict], points=points),)


def _said(check: Check) -> str:
    limit = format_number(check.limit, check.unit)
    if check.verdict is not Verdict.FAIL:
        return f"{check.name}: the limit of {limit} is undecided: {check.reason}."
    bound = "" if check.bound is None else f" (bound {format_number(check.bound, check.unit)})"
    return f"{check.name}: {format_number(check.value, check.unit)}{bound} misses the limit of {limit}: {check.reason}."


def gate_section(gate: GateReport) -> Section:
    """Each limit, and what was measured against it."""
    rows = tuple(
        (
            Cell(check.name),
            Cell(check.verdict.value, kind=check.verdict.value),
            _number(check.value, check.unit),
            _number(check.bound, check.unit),
            _number(check.limit, check.unit),
            Cell(check.reason),
        )
        for check in gate.checks
    )
    sentences = [
        *((gate.warning,) if gate.warning else ()),
        gate.basis,
        *((f"Not limited: {', '.join(gate.not_limited)}.",) if gate.not_limited else ()),
        f"Bounds are one-sided, at {gate.confidence:.0%} confidence (latency: 99%).",
        *(sentence for found in gate.comparisons for sentence in baseline_sentences(found)),
    ]
    text = " ".join(sentences)
    header = ("check", "verdict", "value", "bound", "limit", "reason")
    return Section("gate", "Gate", text, tables=(Table("Each limit and what was measured against it", header, rows),))


def _accuracy(results: RunResults) -> Section:
    paired = results.validation.onnx_top1
    rows = tuple(
        (Cell(name), *accuracy_cells(top1.correct, top1.images), Cell(f"{top1.correct} of {top1.images}"))
        for name, top1 in (("PyTorch student", paired.reference), ("ONNX student", paired.candidate))
    )
    text = (
        f"On the whole test set, which took no part in any choice; the ONNX student was given it "
        f"{results.validation.batches()}, as for its latency. {paired.lost} images are lost by the export and "
        f"{paired.gained} gained. {describe_overlap(results.validation)}."
    )
    header = ("student", "top-1", "95% interval", "correct")
    return Section("accuracy", "Accuracy", text, tables=(Table("Accuracy on the test set", header, rows),))


def _training(results: RunResults) -> Section:
    training, deployed = results.training, DEPLOYED_EPOCH[results.recipe.train.select]
    text = (
        f"{training.steps} steps in {training.seconds:.0f} s with {training.processes} process(es) of "
        f"{training.threads} thread(s). The weights deployed are those of the {deployed}"
    )
    if training.best is None:
        return Section("training", "Training", f"{text}: {NO_VALIDATION}.")
    rows = [_score(name, score) for name, score in (("last", training.last), ("best", training.best))]
    text += "; best means best on the validation split."
    header = ("weights", "epoch", "student top-1", "student balanced accuracy", "teacher top-1")
    table = Table("Accuracy on the validation split", header, tuple(rows))
    return Section("training", "Training", text, tables=(table,))


def _score(name: str, score: EpochScore) -> tuple[Cell, ...]:
    accuracies = (score.validation_top1, score.validation_balanced_accuracy, score.teacher_validation_top1)
    return (
        Cell(name),
        Cell(str(score.epoch), score.epoch),
        *(Cell("-") if accuracy is None else _percent(accuracy) for accuracy in accuracies),
    )


def _artefacts(results: RunResults) -> Section:
    validated = {entry.format: entry for entry in results.validation.artefacts}
    rows = []
    for artefact in results.artefacts.artefacts:
        entry = validated[artefact.format]
        parity, agreement = entry.parity, entry.parity.argmax_agreement
        top1 = entry.top1.candidate.accuracy if entry.top1 else None
        speed = entry.speed.times_fp32 if entry.speed else None
        advice = Cell("recommended", kind="pass") if artefact.format == results.validation.recommended else Cell("")
        advice = Cell("unverified", kind="warning") if artefact.format in UNVERIFIED_FORMATS else advice
        rows.append(
            (
                Cell(artefact.file),
                advice,
                Cell(f"{artefact.bytes / 1e3:.1f} kB", artefact.bytes),
                Cell(parity.problem() or format_number(parity.max_abs_diff), parity.max_abs_diff),
                Cell("-") if agreement is None else _percent(agreement),
                Cell("-") if top1 is None else _percent(top1),
                Cell("-") if speed is None else Cell(f"{speed:.2f}x", speed),
                Cell("-" if entry.help is None else f"{entry.help.words()}: {entry.help.reason}"),
            )
        )
    header = ("file", "advice", "size", "largest difference", "same class", "top-1", "speed", "does it help?")
    text = (
        "Logits of each file against those of the PyTorch student, on real test images; speed is that of the fp32 "
        "ONNX file, timed in interleaved blocks on this host, over its own."
    )
    return Section("artefacts", "Artefacts", text, tables=(Table("Exported files", header, tuple(rows)),))


def latency_section(profile: Profile) -> Section:
    """Percentiles, and whether they are valid."""
    measurement, latency = profile.measurement, profile.latency
    rows = tuple(
        (
            Cell(f"p{entry.fraction * 100:.0f}", entry.fraction),
            Cell(f"{entry.samples_needed} samples needed") if entry.value_ms is None else _number(entry.value_ms, "ms"),
            _number(entry.upper_bound_ms, "ms"),
        )
        for entry in latency.percentiles
    )
    memory = measurement.cold_start.peak_memory_mb
    peak = "unknown" if memory is None else f"{memory:.0f} MB"
    text = (
        f"{profile.file} by onnxruntime on the CPU of the {profile.place}: {latency.threads} thread(s), batch "
        f"{latency.batch_size}, {len(latency.samples_ms)} samples, none removed. Cold start "
        f"{measurement.cold_start.process_to_result_ms:.0f} ms from process to result, load {latency.load_ms:.1f} ms, "
        f"first run {latency.first_run_ms:.2f} ms, peak memory {peak}. "
        f"CPU time over wall time {latency.cpu_over_wall:.2f}."
    )
    if latency.contended:
        text += f" These figures are not valid: {'; '.join(latency.reasons) or 'the host was busy'}."
    if unsteady := why_unsteady(latency):
        text += f" The p50 is inconclusive: {unsteady}."
    header = ("percentile", "latency", "99% upper bound")
    return Section("latency", "Latency", text, tables=(Table("Latency of one inference", header, rows),))


def layer_section(profile: Profile) -> Section:
    """The slowest layers."""
    slowest = sorted(profile.layers, key=lambda layer: -layer.median_us)[:_SLOWEST_LAYERS]
    total = sum(layer.median_us for layer in profile.layers) or 1.0
    rows = tuple(
        (
            Cell(layer.name),
            Cell(f"{layer.median_us:.1f} us", layer.median_us),
            Cell(f"{layer.median_us / total:.1%}", layer.median_us),
            Cell(f"{layer.macs:,}", layer.macs),
        )
        for layer in slowest
    )
    measurement = profile.measurement
    rate = "unknown" if measurement.gflops is None else f"{measurement.gflops:.1f} GFLOP/s"
    text = (
        f"{measurement.macs:,} multiply-accumulates per image, at {rate}; a matrix product reaches "
        f"{measurement.peak_gflops:.0f} GFLOP/s here."
    )
    if not rows:
        text += f" {profile.file} has no times by layer: only an ONNX file has a graph that leads back to its layers."
    caption = "Median time by layer, the slowest first"
    return Section("layers", "Time by layer", text, tables=(Table(caption, ("layer", "time", "share", "MACs"), rows),))


def _split(results: RunResults) -> Section:
    rows = tuple((Cell(name), Cell(found)) for name, found in describe_proof(results.proof))
    text = "What ships is the student, whole, and nothing else: each row is an independent check."
    return Section("split", "Split proof", text, tables=(Table("Checks of the split", ("check", "found"), rows),))


def _environment(results: RunResults) -> Section:
    environment = results.environment
    versions = ", ".join(f"{name} {found}" for name, found in environment.packages.items() if found)
    memory = "memory unknown" if environment.memory_gib is None else f"{environment.memory_gib} GiB"
    text = (
        f"{environment.processor}, {environment.cores} cores, {memory}, {environment.platform}, "
        f"Python {environment.python}; {versions}. Recipe digest {results.recipe.digest()}, data digest "
        f"{results.data_digest}. To reproduce, from this folder:"
    )
    return Section("environment", "Environment", text, commands=f"ecd-deploy run {RECIPE_NAME} --out again")


def _number(value: float | None, unit: str = "") -> Cell:
    return Cell(format_number(value, unit), value)


def _percent(value: float) -> Cell:
    return Cell(f"{value:.2%}", value)
