"""From a checkpoint's tensors into the joint model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ecd_deploy.errors import CheckpointError
from ecd_deploy.recipe.train import Select
from ecd_deploy.training.checkpoints.store import CheckpointStore
from ecd_deploy.training.names import CHECKPOINTS_FOLDER


def load_weights(directory: Path, which: Select, model: nn.Module) -> None:
    """Load the weights of a finished training, after verifying their digests.

    Args:
        directory: the run directory.
        which: of the last epoch, or of the one that the training's recipe calls the best; the student's average where
            there is one.
        model: built as it was for the training.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or it is of another model; or the best epoch is asked
            for of a training without a validation split.
    """
    store = CheckpointStore(directory / CHECKPOINTS_FOLDER)
    checkpoint = store.newest()
    if checkpoint is None:
        raise CheckpointError(f"no checkpoint below {directory / CHECKPOINTS_FOLDER}: train first")
    if checkpoint.state.running is not None or not checkpoint.state.history:
        raise CheckpointError(
            f"the training was stopped after step {checkpoint.state.step}, within an epoch: continue with --resume"
        )
    if which != "last":
        best = checkpoint.state.best
        if best is None:
            raise CheckpointError(
                f"the training below {directory} had no validation split (data.validation_fraction 0), so none of its "
                "epochs is known as the best: take the weights of the last (train.select 'last')"
            )
        if best.step != checkpoint.state.step:
            checkpoint = store.read(store.path_of(best.step))
    averaged = {f"student.{name}": tensor for name, tensor in checkpoint.average.items()}
    assign_weights(model, {**checkpoint.weights, **averaged})


def assign_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy tensors into the model's parameters and buffers of the same names.

    Raises:
        CheckpointError: a name or a shape differs; the first is named.
    """
    require_alike(model.state_dict(), weights, "model")
    model.load_state_dict(dict(weights))


def require_alike(own: Mapping[str, Tensor], kept: Mapping[str, Tensor], owner: str) -> None:
    """Refuse a checkpoint's tensors where their names or shapes are not those of what they are copied to.

    Raises:
        CheckpointError: the first is named, and that they are of another `owner`.
    """
    for name in sorted(own.keys() | kept.keys()):
        expected, found = (tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (own, kept))
        if expected != found:
            raise CheckpointError(
                f"the checkpoint is of another {owner}: at {name} it has {found}, this one has {expected}"
            )
