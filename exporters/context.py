"""What an export may look at besides the student: real images."""

from __future__ import annotations

from dataclasses import dataclass

from ecd_deploy.data import ImageSet, Normalisation


@dataclass(frozen=True)
class ExportContext:
    """Images for formats that are calibrated, and how much accuracy they may lose; never the test images.

    Attributes:
        train: to calibrate on.
        validation: to see what quantisation costs; None if the run trained on every image.
        normalisation: of both.
        seed: of the choice of calibration images.
        max_drop: largest loss of top-1 on the validation images, a fraction, where the format sets none itself.
    """

    train: ImageSet
    validation: ImageSet | None
    normalisation: Normalisation
    seed: int = 0
    max_drop: float = 0.01
