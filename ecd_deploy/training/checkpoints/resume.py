# mypy: untyped-calls-exclude=accelerate

"""Where a training starts: at the beginning, or after its newest whole checkpoint."""

from __future__ import annotations

from accelerate.accelerator import Accelerator

from ecd_deploy.errors import RunDirectoryError
from ecd_deploy.training.checkpoints.state import Checkpoint
from ecd_deploy.training.checkpoints.store import CheckpointStore


def find_start(store: CheckpointStore, accelerator: Accelerator, *, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to resume from; None starts from scratch.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
        RunDirectoryError: there are checkpoints, and `resume` is False.
    """
    if not resume:
        if paths := store.paths():
            raise RunDirectoryError(
                f"{paths[-1].parent} holds checkpoints of an earlier training: resume it or choose another directory"
            )
        return None
    recovered = store.recover() if accelerator.is_main_process else None
    accelerator.wait_for_everyone()
    return recovered if accelerator.is_main_process else store.newest()
