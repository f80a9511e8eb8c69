"""The networks of a run that are looked at: its student, and its teacher from the joint checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ecd_deploy.baselines.distillation import DistilledModel
from ecd_deploy.baselines.knowledge import KnowledgeReader
from ecd_deploy.data import DataSplits, Normalisation
from ecd_deploy.distill import TrainingModel, TrainingOutputs
from ecd_deploy.errors import RunDirectoryError
from ecd_deploy.pipelines.record.names import TRAINING_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.steps.data import recorded_data
from ecd_deploy.pipelines.steps.train import example_images, training_model
from ecd_deploy.training import load_weights


@dataclass(frozen=True)
class Seen:
    """A network as it is called and as it is looked into.

    Attributes:
        title: what figures call it.
        network: images (N, C, H, W) -> logits (N, classes), in evaluation mode.
        inside: the module whose stages are looked at; the network itself, or a part of it.
        reader: of `inside`.
        normalisation: of the images that the network takes, which is the run's.
    """

    title: str
    network: nn.Module
    inside: nn.Module
    reader: KnowledgeReader
    normalisation: Normalisation

    def embeddings(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the classifier gets, (N, features), and the predicted classes (N,)."""
        with torch.no_grad(), self.reader.reading(self.inside) as found:
            logits: Tensor = self.network(images)
        return found.embedding, logits.argmax(dim=1)


class _Teacher(nn.Module):
    """The teacher of a joint model; under ECD its logits need the student's features."""

    def __init__(self, model: TrainingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the teacher's logits (N, classes)."""
        outputs: TrainingOutputs = self.model(images)
        return outputs.heads()["teacher"]


def networks_of(directory: RunDirectory, *, with_teacher: bool) -> tuple[Seen, ...]:
    """Load a trained run's student, and its teacher if it has one.

    Raises:
        RunDirectoryError: the run is not trained, or was made from other data.
        CheckpointError: a checkpoint is missing or was changed.
    """
    directory.require(TRAINING_NAME)
    recipe = directory.recipe
    data = recorded_data(directory)
    model = training_model(recipe, data)
    load_weights(directory.root, recipe.train.select, model)
    model.eval()
    example = example_images(data)
    reader = KnowledgeReader(model.student, example)
    normalisation = data.normalisation
    name = f"{recipe.name} ({directory.root.resolve().name})"
    seen = [Seen(f"{name}: student", model.student, model.student, reader, normalisation)]
    if with_teacher:
        if isinstance(model, DistilledModel) and "teacher" not in model.auxiliary():
            teacher = model.pretrained.network
            its_reader = KnowledgeReader(teacher, example)
            seen.append(Seen(f"{name}: its trained teacher", teacher, teacher, its_reader, normalisation))
        elif "teacher" in model.auxiliary():
            # the teacher's modules have the student's names
            title = "teacher, connected" if "connections" in model.auxiliary() else "teacher"
            inside = model.auxiliary()["teacher"]
            seen.append(Seen(f"{name}: {title}", _Teacher(model), inside, reader, normalisation))
    return tuple(seen)


def shared_data(directory: RunDirectory, others: tuple[RunDirectory, ...]) -> DataSplits:
    """The images of a run, which the others must have too.

    Raises:
        RunDirectoryError: naming the run with other images.
    """
    for other in others:
        if other.manifest.data_digest != directory.manifest.data_digest:
            raise RunDirectoryError(f"--against {other.root}: it was trained on other images than {directory.root}")
    return recorded_data(directory)
