"""What is known of an epoch and of a whole training, as it is written to disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ecd_deploy.recipe.train import Select, TrainConfig
from ecd_deploy.records import Record


class HeadTop1(Record):
    """Top-1 as fractions of the images; None where there is no such head."""

    student: float
    teacher: float | None = None
    ensemble: float | None = None


class EpochScore(Record):
    """Accuracy on the validation split after an epoch, as fractions; None throughout if there is no such split.

    Attributes:
        epoch: counted from 1.
        step: optimiser steps done since the start of the training.
        validation_top1: of the student.
        validation_balanced_accuracy: likewise, the mean recall of the classes that have images there.
        teacher_validation_top1: None if there is no teacher.
        ensemble_validation_top1: of the learned ensemble of both; None if there is none.
    """

    epoch: int
    step: int
    validation_top1: float | None = None
    validation_balanced_accuracy: float | None = None
    teacher_validation_top1: float | None = None
    ensemble_validation_top1: float | None = None


class EpochRecord(EpochScore):
    """One line of `metrics.jsonl`.

    Attributes:
        loss: mean over the epoch's images of the objective, all terms together, each with its factor.
        student_loss: the student's cross-entropy alone.
        teacher_loss: None if there is no teacher.
        ensemble_loss: None if there is no ensemble.
        logits_loss: between the heads' logits, before its factor; None if there is none.
        branches_loss: cross-entropies of ONE's other branches, summed; None if there are none.
        features_loss: between the heads' features, before its factor; None if there is none.
        pretrained_loss: of what is learned from a teacher trained before, with its factors; None if there is none.
        validation_recall: of the student, by the name of each class that has images in the validation split.
        learning_rate: of the epoch's last step.
        seconds: wall time of the epoch, evaluation included.
    """

    loss: float
    student_loss: float
    teacher_loss: float | None = None
    ensemble_loss: float | None = None
    logits_loss: float | None = None
    features_loss: float | None = None
    branches_loss: float | None = None
    pretrained_loss: float | None = None
    validation_recall: Mapping[str, float] | None = None
    learning_rate: float
    seconds: float

    def scalars(self) -> dict[str, float]:
        """What is drawn as a curve, by name: all numbers but those of single classes."""
        return self.model_dump(exclude={"epoch", "step", "validation_recall"}, exclude_none=True)

    def score(self) -> EpochScore:
        """The accuracies alone."""
        return EpochScore(**self.model_dump(include=set(EpochScore.model_fields)))


class DeviceUse(Record):
    """How a training used its device, as far as this was left to the machine or can turn out otherwise than wanted.

    Attributes:
        device: its kind, "cpu" or "cuda".
        channels_last: whether the student's features had this layout.
        tf32_convolutions, tf32_products: whether a GPU rounded the factors of float32 to TF32.
        cudnn_benchmark: whether cuDNN chose algorithms by trying them.
        cuda_graph: whether the steps were recorded and launched as a whole.
        fused: operations of a recorded step that others took on, with `train.cuda_graph` "fused".
        triton_unused: why dynamic convolutions of the backend `triton` were computed by another one, in any process.
    """

    device: str
    channels_last: bool
    tf32_convolutions: bool
    tf32_products: bool
    cudnn_benchmark: bool
    cuda_graph: bool
    fused: int = 0
    triton_unused: tuple[str, ...] = ()


class TrainingResult(Record):
    """A finished training.

    Attributes:
        epochs: done, those before a resume included.
        steps: optimiser steps done.
        last: the last epoch's score.
        best: the score of the best epoch (see `best_score`); None without a validation split.
        seconds: wall time of all epochs.
        threads: CPU threads of torch in each process.
        processes: over which each step was spread.
        use: of the device; None where an earlier version wrote it.
        stacked_with: names of the runs that were trained in the same steps, or in some of them: the last bits of the
            weights, and the seconds, are not those of a training by itself.
    """

    schema_version: Literal[1] = 1
    epochs: int
    steps: int
    last: EpochScore
    best: EpochScore | None
    seconds: float
    threads: int
    processes: int
    use: DeviceUse | None = None
    stacked_with: tuple[str, ...] = ()


def is_finished(history: tuple[EpochRecord, ...], config: TrainConfig) -> bool:
    """Whether all epochs are done, or the best of them is as long ago as the recipe's patience."""
    best = best_score(history, config.select)
    is_exhausted = config.patience is not None and best is not None and len(history) - best.epoch >= config.patience
    return is_exhausted or len(history) == config.epochs


def best_score(history: tuple[EpochRecord, ...], select: Select) -> EpochScore | None:
    """The score of the best epoch, the earliest of equals; None if none was evaluated.

    The best has the highest balanced accuracy on the validation split if the recipe selects by it, else the highest
    top-1.
    """
    evaluated = [(accuracy, record) for record in history if (accuracy := _selected_by(record, select)) is not None]
    if not evaluated:
        return None
    _, best = max(evaluated, key=lambda entry: (entry[0], -entry[1].epoch))
    return best.score()


def _selected_by(record: EpochRecord, select: Select) -> float | None:
    return record.validation_balanced_accuracy if select == "balanced_accuracy" else record.validation_top1
