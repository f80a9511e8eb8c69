"""A few test images with the student's choices: its surest mistakes first."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ecd_deploy.pipelines.record.predictions import StoredPredictions
from ecd_deploy.pipelines.report.page.section import Sample, Section

if TYPE_CHECKING:
    from ecd_deploy.data import ImageSet

_WRONG = 12
_RIGHT = 6
_LEAST_SIDE = 64


def sample_section(images: ImageSet, predictions: StoredPredictions) -> Section:
    """Show the mistakes that the student is surest of, then some images that are classified rightly."""
    confidence = np.nan_to_num(predictions.probabilities.max(axis=1))
    wrong = np.flatnonzero(~predictions.correct)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    right = np.flatnonzero(predictions.correct)
    shown = [*wrong[:_WRONG], *right[:_RIGHT]]
    text = (
        f"{len(wrong)} of {len(predictions.labels)} test images are classified wrongly; the {min(len(wrong), _WRONG)} "
        f"of them that the student is surest of, then {min(len(right), _RIGHT)} that are classified rightly."
    )
    return Section("samples", "Samples", text, samples=tuple(_samples(images, predictions, map(int, shown))))


def _samples(images: ImageSet, predictions: StoredPredictions, indices: Iterable[int]) -> Iterable[Sample]:
    for index in indices:
        chosen = int(predictions.chosen[index])
        yield Sample(
            address=_data_address(images.images[index].transpose(1, 2, 0)),
            true=predictions.classes[int(predictions.labels[index])],
            chosen=predictions.classes[chosen] if chosen >= 0 else "nothing",
            confidence=f"{predictions.probabilities[index].max():.0%}" if chosen >= 0 else "",
        )


def _data_address(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    picture = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    factor = max(1, -(-_LEAST_SIDE // min(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
