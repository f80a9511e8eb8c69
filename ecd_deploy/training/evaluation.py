# mypy: untyped-calls-exclude=accelerate

"""Top-1 of every head on a split, with the model's mode restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.accelerator import Accelerator
from torch import nn

from ecd_deploy.data import ImageSet, Normalisation, eval_batches
from ecd_deploy.distill import HeadName, TrainingModel, TrainingOutputs
from ecd_deploy.training.scores import HeadTop1


def top1(
    model: TrainingModel, images: ImageSet, normalisation: Normalisation, accelerator: Accelerator, batch_size: int
) -> HeadTop1:
    """Share of the images that each head classifies correctly; every process gets the same answer.

    Args:
        model: not wrapped for distribution.
        images: the split.
        normalisation: of the run.
        accelerator: spreads the images over its processes.
        batch_size: images of one forward.
    """
    batches = eval_batches(
        images,
        normalisation,
        batch_size,
        process_index=accelerator.process_index,
        process_count=accelerator.num_processes,
        device=accelerator.device,
    )
    names: tuple[HeadName, ...] = ()
    correct = torch.zeros(0, dtype=torch.int64, device=accelerator.device)
    with evaluating(model), torch.no_grad():
        for batch in batches:
            outputs: TrainingOutputs = model(batch.images)
            names, heads = zip(*outputs.heads().items(), strict=True)
            hits = torch.stack([(logits.argmax(dim=1) == batch.labels).sum() for logits in heads])
            correct = correct + hits if len(correct) else hits
    total = accelerator.reduce(correct, reduction="sum")
    return HeadTop1(**{name: int(count) / len(images) for name, count in zip(names, total, strict=True)})


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
