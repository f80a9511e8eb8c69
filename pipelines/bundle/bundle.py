"""`ecd-deploy bundle RUN_DIR`: a student with all that a device without a network needs to try it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import numpy as np

from ecd_deploy.data import DataSplits
from ecd_deploy.errors import ArtefactError, ExportError, GateFailed, RunDirectoryError, UsageError
from ecd_deploy.exporters import exporter_for
from ecd_deploy.exporters.files.metadata import INPUT_NAME, OUTPUT_NAME
from ecd_deploy.exporters.preprocessing import on_canvas
from ecd_deploy.measure.scores.accuracy import Top1
from ecd_deploy.pipelines.bundle.archive import SUFFIX, Bundle, CheckedSamples, archive_path, write_bundle
from ecd_deploy.pipelines.bundle.description import BundleDescription, largest_drop, latency_conditions
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.pipelines.record.artefacts import Artefact, ArtefactList
from ecd_deploy.pipelines.record.names import ARTEFACTS_NAME, VALIDATION_NAME
from ecd_deploy.pipelines.record.predictions import Samples, read_predictions, shipped_format
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.pipelines.steps.samples import largest_difference
from ecd_deploy.split import SplitProof


def bundle_path(directory: RunDirectory, format_name: str, output: Path | None) -> Path:
    """Where the archive will be: `output`, or RECIPE-FORMAT.tar.gz in the working directory.

    Raises:
        UsageError: something is there already, it is no `.tar.gz`, or it lies in the run directory.
    """
    path = archive_path(output or Path(f"{directory.recipe.name}-{format_name}{SUFFIX}"))
    if path.resolve().is_relative_to(directory.root.resolve()):
        raise UsageError(f"--out {path}: a run directory holds recorded files only; choose a place outside of it")
    return path


def bundled_format(directory: RunDirectory) -> str:
    """What ships, or the fp32 ONNX file where another runtime than a bundle's onnxruntime runs that."""
    name = shipped_format(directory)
    return name if exporter_for(name, directory.recipe.export).runtime == "onnxruntime" else "onnx"


def find_artefact(directory: RunDirectory, format_name: str) -> tuple[Artefact, Top1]:
    """The artefact to pack and its accuracy on the test set.

    Raises:
        RunDirectoryError: the run is not exported or not validated.
        UsageError: the format was not exported, or is not run by onnxruntime.
        GateFailed: its logits were found to be others than the student's.
        ArtefactError: it was exported again after it was validated.
    """
    artefacts = directory.read_json(ARTEFACTS_NAME, ArtefactList).artefacts
    validation = directory.read_json(VALIDATION_NAME, Validation)
    config = directory.recipe.export
    fitting = [entry.format for entry in artefacts if exporter_for(entry.format, config).runtime == "onnxruntime"]
    if format_name not in fitting:
        known = format_name in {entry.format for entry in artefacts}
        why = "is not run by onnxruntime" if known else f"was not exported to {directory.root}"
        raise UsageError(f"--format {format_name}: it {why}; choices are {', '.join(fitting)}")
    artefact = next(entry for entry in artefacts if entry.format == format_name)
    entry = next((entry for entry in validation.artefacts if entry.sha256 == artefact.sha256), None)
    if entry is None or entry.top1 is None:
        raise ArtefactError(f"{artefact.file} was exported again after `validate`: run `validate` again")
    problem = entry.parity_problem(directory.recipe.gate.max_abs_diff)
    if problem is not None:
        raise GateFailed(f"not bundled: {artefact.file} is not the student: {problem}; see {VALIDATION_NAME}")
    return artefact, entry.top1.candidate


def bundle(directory: RunDirectory, proof: SplitProof, data: DataSplits, format_name: str, path: Path) -> Bundle:
    """Pack an artefact with samples of the test split, and what checks them; the same run gives the same bytes.

    Raises:
        EcdDeployError: see `find_artefact`.
        RunDirectoryError: the run was validated by a version that chose no samples.
        ArtefactError: a file was changed, or the archive cannot be written.
    """
    artefact, top1 = find_artefact(directory, format_name)
    exporter, model = exporter_for(format_name, directory.recipe.export), directory.read(artefact.file)
    metadata = exporter.read_metadata(model)
    samples = _samples(directory)
    images, labels = data.test.images[samples.indices], data.test.labels[samples.indices]
    found = exporter.open(model, _no_student)(data.normalisation.apply(images))
    gate, budget = directory.recipe.gate, exporter.budget
    difference = largest_difference(gate)
    if budget is not None:
        difference = budget.relative * float(np.abs(samples.logits).max())
    description = BundleDescription(
        name=f"{directory.recipe.name}-{format_name}",
        student=metadata.student,
        format=format_name,
        model=Path(artefact.file).name,
        model_sha256=artefact.sha256,
        student_digest=proof.student_digest,
        recipe_digest=directory.recipe.digest(),
        onnxruntime=version("onnxruntime"),
        test_images=top1.images,
        test_top1=top1.accuracy,
        input=INPUT_NAME,
        output=OUTPUT_NAME,
        scores="logits",
        preprocessing=Preprocessing.of_metadata(metadata),
        batch=metadata.batch,
        max_difference=difference,
        min_same_class=1.0 if budget is None else budget.agreement,
        samples_correct=int((found.argmax(axis=1) == labels).sum()),
        max_drop=largest_drop(gate),
        latency=latency_conditions(directory.recipe.profile, gate),
    )
    given = on_canvas(images.transpose(0, 2, 3, 1), metadata).transpose(0, 3, 1, 2)
    checked = CheckedSamples(given, labels, samples.logits)
    return write_bundle(path, description, model, checked, data.classes)


def _samples(directory: RunDirectory) -> Samples:
    samples = next(iter(read_predictions(directory).values())).samples  # alike for every artefact
    if samples is None:
        raise RunDirectoryError(f"{directory.root} was validated by an older version: run `validate` again")
    if not len(samples.indices):
        raise ArtefactError("no bundle: rounding decides between the student's two largest logits on every test image")
    return samples


def _no_student() -> NoReturn:
    raise ExportError("a format that onnxruntime runs holds its own graph")
