"""Everything that a finished run says of itself: the one source of every page about it."""

from __future__ import annotations

from dataclasses import dataclass

from ecd_deploy.config import Recipe
from ecd_deploy.data import ImageSet
from ecd_deploy.errors import ArtefactError
from ecd_deploy.pipelines.artefacts import ARTEFACTS_NAME, ArtefactList
from ecd_deploy.pipelines.environment import ENVIRONMENT_NAME, Environment
from ecd_deploy.pipelines.gate import GATE_NAME, GateReport
from ecd_deploy.pipelines.names import SPLIT_NAME, TRAINING_NAME
from ecd_deploy.pipelines.predictions import StoredPredictions, read_predictions
from ecd_deploy.pipelines.profile import PROFILE_NAME, Profile
from ecd_deploy.pipelines.run_directory import RunDirectory
from ecd_deploy.pipelines.validation import VALIDATION_NAME, Validation
from ecd_deploy.split import SplitProof
from ecd_deploy.training import EpochRecord, TrainingResult

METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class RunResults:
    """The results of all steps; every file was checked against the manifest."""

    recipe: Recipe
    data_digest: str
    epochs: tuple[EpochRecord, ...]
    training: TrainingResult
    proof: SplitProof
    artefacts: ArtefactList
    validation: Validation
    profile: Profile
    gate: GateReport
    environment: Environment
    predictions: StoredPredictions
    test_images: ImageSet | None = None
    """For sample images; None leaves them out."""


@dataclass(frozen=True)
class NamedRun:
    """Another run to compare with, under the name of its folder."""

    name: str
    results: RunResults


def read_results(directory: RunDirectory, test_images: ImageSet | None = None) -> RunResults:
    """Read the results of all steps.

    Raises:
        RunDirectoryError: naming the step that has not been run.
        ArtefactError: a file was changed.
    """
    training = directory.read_json(TRAINING_NAME, TrainingResult, made_by="train")
    lines = directory.read(METRICS_NAME).decode().splitlines()
    if directory.manifest.data_digest is None:
        raise ArtefactError(f"{directory.root} does not say which data it was made from")
    return RunResults(
        recipe=directory.recipe,
        data_digest=directory.manifest.data_digest,
        epochs=tuple(EpochRecord.model_validate_json(line) for line in lines),
        training=training,
        proof=directory.read_json(SPLIT_NAME, SplitProof, made_by="split"),
        artefacts=directory.read_json(ARTEFACTS_NAME, ArtefactList, made_by="export"),
        validation=directory.read_json(VALIDATION_NAME, Validation, made_by="validate"),
        profile=directory.read_json(PROFILE_NAME, Profile, made_by="profile"),
        gate=directory.read_json(GATE_NAME, GateReport, made_by="gate"),
        environment=directory.read_json(ENVIRONMENT_NAME, Environment, made_by="train"),
        predictions=read_predictions(directory),
        test_images=test_images,
    )
