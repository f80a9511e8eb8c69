"""The steps of a run, one entry each; `run` is the list of them.

Each function imports its own step, so that a wrong call is told before torch is loaded. Results travel from step to
step in memory. Models do not: what is exported is built anew from the student's factory and the digested weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecd_deploy.errors import EcdDeployError, RunDirectoryError
from ecd_deploy.pipelines.record.progress import OnEvent, Rehearsed, step
from ecd_deploy.pipelines.record.run_directory import RunDirectory, create_run, holds_run, open_run, read_run
from ecd_deploy.training.progress import ignore

if TYPE_CHECKING:
    from ecd_deploy.data import DataSplits
    from ecd_deploy.measure.scores.power import Power
    from ecd_deploy.pipelines.bundle.archive import Bundle
    from ecd_deploy.pipelines.gate.decide import GateReport
    from ecd_deploy.pipelines.record.artefacts import ArtefactList
    from ecd_deploy.pipelines.record.validation import Validation
    from ecd_deploy.pipelines.rehearse.result import Rehearsal
    from ecd_deploy.pipelines.report.results import RunResults
    from ecd_deploy.recipe.recipe import Recipe
    from ecd_deploy.split import SplitProof
    from ecd_deploy.training import TrainingResult


def run(
    recipe: Recipe,
    root: Path,
    *,
    resume: bool,
    accept_changes: bool = False,
    rehearsal: bool = True,
    on_event: OnEvent = ignore,
) -> RunResults:
    """Train, split, export, validate, measure, gate and report; before it, if `rehearsal`, all of it in small.

    Under `accelerate launch` the first process calls this, the others call `run_train`.

    Raises:
        EcdDeployError: any step's error; what was written before it stays.
    """
    from ecd_deploy.pipelines.gate.decide import Evidence, gate
    from ecd_deploy.pipelines.record.environment import record_environment
    from ecd_deploy.pipelines.report.results import RunResults
    from ecd_deploy.pipelines.report.write import write_report
    from ecd_deploy.pipelines.steps.export import export
    from ecd_deploy.pipelines.steps.measure import measure
    from ecd_deploy.pipelines.steps.split import open_student, split
    from ecd_deploy.pipelines.steps.start import load_training_data
    from ecd_deploy.pipelines.steps.track import track
    from ecd_deploy.pipelines.steps.train import train
    from ecd_deploy.pipelines.steps.validate import validate

    data = load_training_data(recipe)
    if rehearsal and not holds_run(root, resume=resume):
        _rehearse(recipe, data, on_event)
    with create_run(root, recipe, resume=resume, accept_changes=accept_changes) as directory:
        environment = record_environment(directory)
        with step("train", on_event):
            training = train(directory, data, resume=resume, accept_changes=accept_changes, on_event=on_event)
        with step("split", on_event):
            proof = split(directory, data)
        with step("export", on_event):
            student = open_student(directory, data, proof)
            exported = export(directory, student, data)
        with step("validate", on_event):
            validated = validate(directory, student, data, exported.artefacts)
        with step("profile", on_event):
            profiles = measure(directory, validated.validation)
        evidence = Evidence(
            proof=proof,
            artefacts=exported.artefacts,
            audit=exported.audit,
            validation=validated.validation,
            profiles={profile.file: profile for profile in profiles},
            predictions=validated.predictions,
        )
        with step("gate", on_event):
            report = gate(directory, evidence)
        results = RunResults(
            recipe=recipe,
            data_digest=data.digest,
            epochs=training.epochs,
            training=training.result,
            proof=proof,
            artefacts=exported.artefacts,
            validation=validated.validation,
            profile=profiles[0],
            gate=report,
            environment=environment,
            predictions=validated.predictions[report.artefacts[0].format],
            test_images=data.test,
        )
        with step("report", on_event):
            write_report(directory, results)
            track(directory, report.verdict.value, report.values())
        return results


def is_main_process() -> bool:
    """Whether this is the first process of an `accelerate launch`, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def run_train(
    recipe: Recipe,
    root: Path,
    *,
    resume: bool,
    accept_changes: bool = False,
    rehearsal: bool = True,
    on_event: OnEvent = ignore,
) -> TrainingResult:
    """Train into a new run directory, rehearsed as in `run`, or resume in one; every process of a launch calls this."""
    from ecd_deploy.pipelines.record.environment import record_environment
    from ecd_deploy.pipelines.steps.start import load_training_data
    from ecd_deploy.pipelines.steps.train import train, train_as_worker

    data = load_training_data(recipe)
    if not is_main_process():
        return train_as_worker(recipe, root, data, resume=resume, accept_changes=accept_changes)
    if rehearsal and not holds_run(root, resume=resume):
        _rehearse(recipe, data, on_event)
    with create_run(root, recipe, resume=resume, accept_changes=accept_changes) as directory:
        record_environment(directory)
        with step("train", on_event):
            trained = train(directory, data, resume=resume, accept_changes=accept_changes, on_event=on_event)
        return trained.result


def run_rehearsal(recipe: Recipe) -> Rehearsal:
    """Rehearse a recipe on its images; nothing is written.

    Raises:
        UsageError: what would fail later.
        DataError: images that cannot be used.
    """
    from ecd_deploy.pipelines.rehearse.rehearsal import rehearse
    from ecd_deploy.pipelines.steps.start import load_training_data

    return rehearse(recipe, load_training_data(recipe))


def run_split(root: Path) -> SplitProof:
    """Split the student off a trained run."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.steps.split import split

        return split(directory, _data(directory))


def run_export(root: Path) -> ArtefactList:
    """Export the student that `split` left."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.steps.export import export
        from ecd_deploy.pipelines.steps.split import open_student, read_proof

        proof, data = read_proof(directory), _data(directory)
        return export(directory, open_student(directory, data, proof), data).artefacts


def run_validate(root: Path) -> Validation:
    """Validate the artefacts that `export` left."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.record.artefacts import read_artefacts
        from ecd_deploy.pipelines.steps.split import open_student, read_proof
        from ecd_deploy.pipelines.steps.validate import validate

        proof, artefacts, data = read_proof(directory), read_artefacts(directory), _data(directory)
        return validate(directory, open_student(directory, data, proof), data, artefacts).validation


def run_gate(root: Path, *, baseline: Path | None = None, limits_file: Path | None = None) -> GateReport:
    """Decide about a validated and profiled run; where that cannot be done, `junit.xml` says why."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.gate.ci import junit_error
        from ecd_deploy.pipelines.gate.decide import gate, read_evidence
        from ecd_deploy.pipelines.record.names import JUNIT_NAME
        from ecd_deploy.pipelines.steps.track import track

        try:
            report = gate(directory, read_evidence(directory), baseline=baseline, limits_file=limits_file)
        except EcdDeployError as error:
            directory.write(JUNIT_NAME, junit_error(error))
            raise
        track(directory, report.verdict.value, report.values())
        return report


def run_model_gate(
    target: Path,
    data: Path,
    *,
    config: Path | None = None,
    overrides: tuple[str, ...] = (),
    baseline: Path | None = None,
    out: Path,
    skip_bad: bool = False,
) -> GateReport:
    """Evaluate, profile and decide about a model of any origin on labelled images, and write its report.

    What an earlier gate left in `out` goes first; where no verdict can be reached then, `junit.xml` there says why.
    """
    from ecd_deploy.files import write_atomic
    from ecd_deploy.pipelines.evaluate.result import check_output
    from ecd_deploy.pipelines.gate.ci import junit_error
    from ecd_deploy.pipelines.gate.limits import read_settings
    from ecd_deploy.pipelines.gate.model import gate_model, remove_verdict
    from ecd_deploy.pipelines.record.names import JUNIT_NAME
    from ecd_deploy.pipelines.report.model import write_model_report

    check_output(out)
    stale = remove_verdict(out, keep_baseline=baseline is not None)
    try:
        settings = read_settings(target, config, overrides, has_baseline=baseline is not None)
        gated = gate_model(target, data, settings, out, baseline=baseline, skip_bad=skip_bad)
    except EcdDeployError as error:
        if stale:
            write_atomic(out / JUNIT_NAME, junit_error(error))
        raise
    write_model_report(out, gated)
    return gated.report


def run_power(root: Path, *, baseline: Path | None = None, limits_file: Path | None = None) -> Power:
    """What the test images of a validated run can show, against a baseline of the same ones if there is one."""
    from ecd_deploy.measure.scores.power import power
    from ecd_deploy.pipelines.gate.limits import limits_of, read_limits
    from ecd_deploy.pipelines.record.predictions import shipped_predictions

    directory = read_run(root)
    limits = limits_of(directory) if limits_file is None else read_limits(limits_file)
    own = shipped_predictions(directory, limits.config.artefact)
    theirs = None if baseline is None else shipped_predictions(read_run(baseline))
    if theirs is not None and theirs.test_digest != own.test_digest:
        raise RunDirectoryError(f"{baseline} has other test images: --power compares runs that have the same ones")
    return power(own, theirs, limits.config.confidence)


def run_report(root: Path, against: Sequence[Path] = ()) -> Path:
    """Write the report of a finished run, with other finished runs beside it, which are only read."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.report.results import read_others, read_results
        from ecd_deploy.pipelines.report.write import write_report

        others = read_others(root, against)
        return write_report(directory, read_results(directory, _data(directory).test), others)


def run_bundle(root: Path, *, format_name: str | None = None, output: Path | None = None) -> Bundle:
    """Pack an artefact of a validated run for a device without a network."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.bundle.bundle import bundle, bundle_path, bundled_format, find_artefact
        from ecd_deploy.pipelines.record.names import SPLIT_NAME
        from ecd_deploy.split import SplitProof

        format_name = format_name or bundled_format(directory)
        path = bundle_path(directory, format_name, output)
        find_artefact(directory, format_name)
        return bundle(directory, directory.read_json(SPLIT_NAME, SplitProof), _data(directory), format_name, path)


def run_model_bundle(
    model: Path,
    data: Path,
    *,
    config: Path | None = None,
    overrides: tuple[str, ...] = (),
    output: Path | None = None,
    skip_bad: bool = False,
) -> Bundle:
    """Pack a model of any origin, with some of the labelled images that it is evaluated on."""
    from ecd_deploy.pipelines.bundle.model import bundle_model
    from ecd_deploy.recipe.input import read_model_config

    return bundle_model(model, data, read_model_config(config, overrides), output, skip_bad=skip_bad)


def _rehearse(recipe: Recipe, data: DataSplits, on_event: OnEvent) -> None:
    from ecd_deploy.pipelines.rehearse.rehearsal import rehearse

    with step("rehearse", on_event):
        on_event(Rehearsed(words=rehearse(recipe, data).words()))


def _data(directory: RunDirectory) -> DataSplits:
    from ecd_deploy.pipelines.steps.data import recorded_data

    return recorded_data(directory)
