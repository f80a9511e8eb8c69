"""Parity: an artefact's logits against those of the PyTorch student, on real images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.records import Record


class Parity(Record):
    """How an artefact's logits compare with the student's; written to `validation.json`."""

    images: int
    expected_shape: tuple[int, ...]
    found_shape: tuple[int, ...]
    max_abs_diff: float | None
    """Largest absolute difference of a logit; None where shapes differ or a logit is not finite."""
    argmax_agreement: float | None
    """Share of images for which both choose the same class; None as above."""
    largest_logit: float | None = None
    """Largest absolute logit of the student; None as above."""
    first_bad_image: int | None = None
    """Index of the first image with a logit that is not finite."""

    @property
    def comparable(self) -> bool:
        """Whether shapes agree and every logit is finite."""
        return self.max_abs_diff is not None

    @property
    def relative_diff(self) -> float | None:
        """`max_abs_diff` as a share of the student's largest logit; None where there is none."""
        if self.max_abs_diff is None or not self.largest_logit:
            return None
        return self.max_abs_diff / self.largest_logit

    def problem(self) -> str | None:
        """What forbids a comparison, in words; None if nothing does."""
        if self.expected_shape != self.found_shape:
            return f"logits have shape {list(self.found_shape)}, expected {list(self.expected_shape)}"
        if self.first_bad_image is not None:
            return f"a logit of image {self.first_bad_image} is not finite"
        return None


def compare_logits(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Parity:
    """Compare logits (N, classes) in shape, finiteness and value, in this order."""
    images = expected.shape[0]
    if expected.shape != found.shape:
        return Parity(
            images=images,
            expected_shape=expected.shape,
            found_shape=found.shape,
            max_abs_diff=None,
            argmax_agreement=None,
        )
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    difference = float(np.abs(expected.astype(np.float64) - found).max()) if not bad.size else None
    agreement = float((expected.argmax(axis=1) == found.argmax(axis=1)).mean()) if not bad.size else None
    return Parity(
        images=images,
        expected_shape=expected.shape,
        found_shape=found.shape,
        max_abs_diff=difference,
        argmax_agreement=agreement,
        largest_logit=float(np.abs(expected).max()) if not bad.size else None,
        first_bad_image=int(bad[0]) if bad.size else None,
    )
