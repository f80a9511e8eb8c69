"""Top-1 accuracy as counts, so that bounds can be computed from the same numbers later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.records import Record

if TYPE_CHECKING:
    from ecd_deploy.measure.predictors.prediction import Predictions


class Top1(Record):
    """Images classified correctly, of all."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """A fraction; NaN where there are no images."""
        return self.correct / self.images if self.images else float("nan")


class PairedTop1(Record):
    """A reference and a candidate on the same images."""

    reference: Top1
    candidate: Top1
    lost: int
    """Images that only the reference classifies correctly."""
    gained: int
    """Images that only the candidate classifies correctly."""

    @property
    def drop(self) -> float:
        """Accuracy of the reference minus that of the candidate."""
        return self.reference.accuracy - self.candidate.accuracy


def top1(predictions: Predictions) -> Top1:
    """Count the images whose largest logit is that of their label."""
    return Top1(correct=int(predictions.correct.sum()), images=len(predictions.labels))


def paired_top1(reference: Predictions, candidate: Predictions) -> PairedTop1:
    """Compare two models image by image.

    Raises:
        ValueError: the labels differ, so the images are not the same.
    """
    if reference.labels.tolist() != candidate.labels.tolist():
        raise ValueError("the two models did not see the same images in the same order")
    return PairedTop1(
        reference=top1(reference),
        candidate=top1(candidate),
        lost=int((reference.correct & ~candidate.correct).sum()),
        gained=int((candidate.correct & ~reference.correct).sum()),
    )
