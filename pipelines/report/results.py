"""Everything that a finished run says of itself: the one source of every page about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecd_deploy.errors import ArtefactError
from ecd_deploy.measure.accuracy import Top1
from ecd_deploy.pipelines.gate.decide import GateReport, read_evidence
from ecd_deploy.pipelines.record.artefacts import Artefact, ArtefactList
from ecd_deploy.pipelines.record.environment import Environment
from ecd_deploy.pipelines.record.epochs import read_epochs
from ecd_deploy.pipelines.record.names import (
    ENVIRONMENT_NAME,
    GATE_NAME,
    TRAINING_NAME,
)
from ecd_deploy.pipelines.record.predictions import StoredPredictions
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.split import SplitProof
from ecd_deploy.training import EpochRecord, TrainingResult

if TYPE_CHECKING:
    from ecd_deploy.data import ImageSet


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
    """Of the artefact that was decided about, the first of several."""
    test_images: ImageSet | None = None
    """For sample images; None leaves them out."""

    @property
    def shipped(self) -> Artefact:
        """The artefact that was decided about, the first of several."""
        return self.artefacts.find(self.gate.artefacts[0].format)

    @property
    def top1(self) -> Top1:
        """Its top-1 on the whole test set."""
        correct = self.predictions.correct
        return Top1(correct=int(correct.sum()), images=len(correct))


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
    gate = directory.read_json(GATE_NAME, GateReport)
    shipped = gate.artefacts[0]
    training = directory.read_json(TRAINING_NAME, TrainingResult)
    evidence = read_evidence(directory)
    if directory.manifest.data_digest is None:
        raise ArtefactError(f"{directory.root} does not say which data it was made from")
    return RunResults(
        recipe=directory.recipe,
        data_digest=directory.manifest.data_digest,
        epochs=read_epochs(directory),
        training=training,
        proof=evidence.proof,
        artefacts=evidence.artefacts,
        validation=evidence.validation,
        profile=evidence.profiles[shipped.file],
        gate=gate,
        environment=directory.read_json(ENVIRONMENT_NAME, Environment),
        predictions=evidence.predictions[shipped.format],
        test_images=test_images,
    )
