# mypy: untyped-calls-exclude=accelerate

"""Accuracy of every head on a split, with the model's mode restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean

import torch
from accelerate.accelerator import Accelerator
from torch import nn

from ecd_deploy.data import ImageSet, ImageTensors, Normalisation, eval_batches
from ecd_deploy.distill import HeadName, TrainingModel, TrainingOutputs
from ecd_deploy.training.scores import HeadTop1

_SHARE_OF_MEMORY = 0.25  # of what is free on an accelerator, for images that are evaluated again and again
_VALUES_AT_ONCE = 2**23  # of images that an accelerator evaluates together: 2,730 of 32x32 in colour


@dataclass(frozen=True)
class Accuracy:
    """What a model gets right of a split.

    Attributes:
        top1: of each head.
        recalls: of the student, the share of each class's images that it classifies correctly; None for a class that
            has none.
    """

    top1: HeadTop1
    recalls: tuple[float | None, ...]

    @property
    def balanced(self) -> float:
        """The student's mean recall of the classes that have images."""
        return fmean(recall for recall in self.recalls if recall is not None)


def moved_if_they_fit(images: ImageSet, device: torch.device) -> ImageTensors:
    """Put images where they are evaluated, if they take at most a quarter of the memory that is free there."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if images.images.nbytes <= _SHARE_OF_MEMORY * free:
            return ImageTensors.of(images, device)
    return ImageTensors.of(images)


def evaluate(
    model: TrainingModel, images: ImageTensors, normalisation: Normalisation, accelerator: Accelerator, batch_size: int
) -> Accuracy:
    """Count the images that each head classifies correctly; every process gets the same answer.

    Args:
        model: not wrapped for distribution.
        images: the split.
        normalisation: of the run.
        accelerator: spreads the images over its processes.
        batch_size: images of one forward; an accelerator takes more of small ones.
    """
    if accelerator.device.type != "cpu":
        batch_size = max(batch_size, _VALUES_AT_ONCE // images.images[0].numel())
    batches = eval_batches(
        images,
        normalisation,
        batch_size,
        process_index=accelerator.process_index,
        process_count=accelerator.num_processes,
        device=accelerator.device,
    )
    names: tuple[HeadName, ...] = ()
    correct = torch.zeros(0, dtype=torch.int64, device=accelerator.device)  # (heads, classes)
    with evaluating(model), torch.no_grad():
        for batch in batches:
            outputs: TrainingOutputs = model(batch.images)
            names, heads = zip(*outputs.heads().items(), strict=True)
            if not len(correct):
                correct = correct.new_zeros(len(heads), heads[0].shape[1])
            hits = torch.stack([logits.argmax(dim=1) == batch.labels for logits in heads])
            correct.index_add_(1, batch.labels, hits.long())
    total = accelerator.reduce(correct, reduction="sum")
    sizes = torch.bincount(images.labels, minlength=total.shape[1]).tolist()
    right = total.sum(dim=1).tolist()
    return Accuracy(
        HeadTop1(**{name: count / len(images) for name, count in zip(names, right, strict=True)}),
        tuple(count / size if size else None for count, size in zip(total[0].tolist(), sizes, strict=True)),
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode and give each of its modules its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
