"""Step 4: parity and accuracy of the artefacts, their speed against fp32, and which of them is the one to ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ecd_deploy.data import DataSplits
from ecd_deploy.data.digest import digest_of_test
from ecd_deploy.errors import ArtefactError
from ecd_deploy.exporters import ArtefactMetadata, exporter_for
from ecd_deploy.exporters.budget import COARSE_BATCH_SPREAD, ParityBudget
from ecd_deploy.exporters.divergence.result import Divergence
from ecd_deploy.exporters.divergence.search import first_divergence
from ecd_deploy.exporters.onnx.format import OnnxFormat
from ecd_deploy.exporters.onnx.provider import Opened, open_artefact
from ecd_deploy.exporters.preprocessing import to_pixels
from ecd_deploy.measure.predictors.prediction import Predictions, Predictor, predict
from ecd_deploy.measure.predictors.torch_predictor import reference_predictor
from ecd_deploy.measure.scores.accuracy import paired_top1
from ecd_deploy.measure.scores.parity import compare_logits
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.record.artefacts import Artefact, ArtefactList
from ecd_deploy.pipelines.record.names import VALIDATION_NAME
from ecd_deploy.pipelines.record.predictions import StoredPredictions, scores_of, write_predictions
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation
from ecd_deploy.pipelines.steps.compare_speed import compare_speed, judge
from ecd_deploy.pipelines.steps.samples import choose_samples
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.split import SplitStudent
from ecd_deploy.split.checks.batch import TOLERANCE, batch_spread
from ecd_deploy.training.steps.allocator import keep_freed_memory

_PARITY_IMAGES = 256
_REFERENCE_BATCH = 128
_LAYOUT_IMAGES = 8
_DIVERGENCE_IMAGES = 4
_BATCHED_IMAGES = 32


@dataclass(frozen=True)
class _Measured:
    """What all artefacts of a run are compared with."""

    directory: RunDirectory
    student: SplitStudent
    data: DataSplits
    reference: Predictions
    fp32: bytes


@dataclass(frozen=True)
class Validated:
    """What was found of each artefact, and what those on the whole test set say of each image, by format."""

    validation: Validation
    predictions: Mapping[str, StoredPredictions]


def validate(directory: RunDirectory, student: SplitStudent, data: DataSplits, exported: ArtefactList) -> Validated:
    """Compare every artefact with the student on real test images; count on all of them what the target's runtimes run.

    Artefacts run in batches of `profile.batch_size`, as latency is measured. The student runs in large ones.

    Raises:
        ArtefactError: an artefact was changed, belongs to another student or does not run.
    """
    if exported.student_digest != student.proof.student_digest:
        raise ArtefactError("the student was split again after `export`: run `export` again")
    keep_freed_memory()
    predictor = reference_predictor(student.module, data.normalisation.apply(data.test.images[:_LAYOUT_IMAGES]))
    reference = predict(predictor, data.normalisation.batches(data.test, _REFERENCE_BATCH))
    fp32 = directory.read(exported.find("onnx").file)
    measured = _Measured(directory, student, data, reference, fp32)
    checked = [_validate_one(measured, artefact) for artefact in exported.artefacts]
    entries = tuple(one.entry for one in checked)
    onnx = next((one for one in checked if one.entry.format == "onnx"), None)
    if onnx is None or onnx.entry.top1 is None:
        raise ArtefactError("no ONNX artefact was exported, and accuracy is measured on it")
    samples, digest = choose_samples(data.test, reference, directory.recipe.gate), digest_of_test(data)
    predictions = {
        one.entry.format: scores_of(one.found, data.classes, digest, samples, data.test_columns)
        for one in checked
        if one.entry.top1 is not None
    }
    write_predictions(directory, predictions)
    recommended = _recommended(entries)
    result = Validation(
        artefacts=entries,
        onnx_top1=onnx.entry.top1,
        batch_size=directory.recipe.profile.batch_size,
        overlapping_test_images=data.overlapping_test_images,
        recommended=recommended,
        recommended_sha256=exported.find(recommended).sha256,
    )
    result.shipping(directory.recipe.gate.artefact)
    directory.write_json(VALIDATION_NAME, result)
    return Validated(result, predictions)


@dataclass(frozen=True)
class _Checked:
    """An artefact's entry, and the logits that it is about."""

    entry: ArtefactValidation
    found: Predictions


def _validate_one(measured: _Measured, artefact: Artefact) -> _Checked:
    directory, data = measured.directory, measured.data
    exporter = exporter_for(artefact.format, directory.recipe.export)
    content = directory.read(artefact.file)
    name = directory.recipe.student.name
    whole, by_onnxruntime = exporter.runtime in directory.recipe.profile.runtimes, exporter.runtime == "onnxruntime"
    cores = torch.get_num_threads()
    provider = directory.recipe.profile.provider if by_onnxruntime else None
    opened = open_artefact(
        exporter,
        content,
        lambda: build_student(name, num_classes=len(data.classes), in_channels=data.in_channels),
        provider=provider,
        threads=1 if by_onnxruntime else cores,
    )
    images = data.test if whole else data.test.first(_PARITY_IMAGES)
    batch_size = directory.recipe.profile.batch_size
    found = predict(
        opened.predictor, data.normalisation.batches(images, batch_size), at_once=cores if by_onnxruntime else 1
    )
    limit = batch_limit(exporter.budget, opened)
    _check_batches(opened.predictor, artefact, limit, data, found, batch_size)
    entry = ArtefactValidation(
        format=artefact.format,
        file=artefact.file,
        sha256=artefact.sha256,
        parity=compare_logits(measured.reference.logits[: len(images)], found.logits),
        budget=exporter.budget,
        top1=paired_top1(measured.reference, found) if whole and len(found.logits) == len(images) else None,
        provider=opened.provider,
        on_cpu=opened.on_cpu,
    )
    metadata = exporter.read_metadata(content)
    gate = directory.recipe.gate
    if isinstance(exporter, OnnxFormat) and entry.parity_problem(gate.max_abs_diff) is not None:
        entry = entry.model_copy(update={"divergence": _divergence(measured, entry, content, metadata)})
    of_fp32 = metadata.derived_from is not None and metadata.batch is None
    if whole and (of_fp32 or not by_onnxruntime):
        speed = compare_speed(content, measured.fp32, directory.recipe.profile.threads, provider)
        problem = entry.parity_problem(gate.max_abs_diff) or _accuracy_problem(entry, gate)
        verdict = judge(len(content), len(measured.fp32), speed, problem, must_be_smaller=by_onnxruntime)
        entry = entry.model_copy(update={"speed": speed, "help": verdict})
    return _Checked(entry, found)


def _divergence(
    measured: _Measured, entry: ArtefactValidation, content: bytes, metadata: ArtefactMetadata
) -> Divergence | None:
    images = measured.data.normalisation.apply(measured.data.test.images[:_DIVERGENCE_IMAGES])
    given = to_pixels(images, metadata) if metadata.preprocessing != "outside" else images
    limit = 1e-3 if entry.budget is None else entry.budget.relative
    return first_divergence(content, measured.student, given, images, limit)


def _check_batches(
    predictor: Predictor,
    artefact: Artefact,
    limit: float,
    data: DataSplits,
    found: Predictions,
    batch_size: int,
) -> None:
    """Refuse an artefact that gives an image other logits than it had in its batch of the accuracy measurement."""
    images = torch.from_numpy(data.normalisation.apply(data.test.images[:_BATCHED_IMAGES]))
    measured = torch.from_numpy(found.logits[: len(images)])
    spread = batch_spread(lambda chosen: torch.from_numpy(predictor(chosen.numpy())), images, measured)
    if spread.largest > limit:
        usual = "alone" if batch_size == 1 else f"in a batch of {min(batch_size, len(found.labels))}"
        raise ArtefactError(
            f"{artefact.file} gives an image other logits {spread.worst} than {usual}, off by {spread.largest:.2g} of "
            "the largest: no accuracy of it would hold on the device"
        )


def batch_limit(budget: ParityBudget | None, opened: Opened) -> float:
    """How far a logit of an artefact may be off in another batch, as a share of the largest.

    Where it is rounded to few bits, a last bit of a float becomes one of those.
    """
    return COARSE_BATCH_SPREAD if opened.coarse or budget is not None else TOLERANCE


def _accuracy_problem(entry: ArtefactValidation, gate: GateConfig) -> str | None:
    if entry.top1 is None or gate.max_drop is None or entry.top1.drop <= gate.max_drop:
        return None
    return f"top-1 drops by {entry.top1.drop:.2%}, limit {gate.max_drop:.2%}"


def _recommended(entries: tuple[ArtefactValidation, ...]) -> str:
    helping = [(entry.speed.times_fp32, entry.format) for entry in entries if entry.speed and _helps(entry)]
    return max(helping)[1] if helping else "onnx"


def _helps(entry: ArtefactValidation) -> bool:
    return entry.help is not None and entry.help.helps is True
