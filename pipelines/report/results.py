"""Everything that a finished run says of itself: the one source of every page about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.measure.scores.accuracy import Top1
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
from ecd_deploy.pipelines.record.run_directory import RunDirectory, read_run
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


def read_others(root: Path, against: Sequence[Path]) -> list[NamedRun]:
    """Read other finished runs, named by as much of their paths as tells them apart.

    Raises:
        UsageError: one is named twice, or is the run in `root` itself.
        EcdDeployError: see `read_results`.
    """
    folders = [path.resolve() for path in against]
    if root.resolve() in folders or len(set(folders)) != len(folders):
        raise UsageError("--against: a run is named twice, or is the one that is reported")
    longest = max((len(folder.parts) for folder in folders), default=1)
    names = [str(folder) for folder in folders]
    for parts in range(1, longest):
        shorter = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(shorter)) == len(shorter):
            names = shorter
            break
    return [NamedRun(name, read_results(read_run(other))) for name, other in zip(names, against, strict=True)]


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
