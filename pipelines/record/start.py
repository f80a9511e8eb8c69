"""`start.json`: which weights the student of a run started from."""

from __future__ import annotations

from dataclasses import replace

from ecd_deploy.data import DataSplits, Normalisation
from ecd_deploy.records import Record


class Start(Record):
    """The weights that a run started from.

    Attributes:
        weights: as the recipe names them.
        origin: in words.
        digest: SHA-256 over the tensors' names, types, shapes and values.
        mean: of each channel; the images of the run are normalised by it from the first step to the artefacts.
        std: likewise.
    """

    weights: str
    origin: str
    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, data: DataSplits) -> DataSplits:
        """The same images, normalised as the weights need it."""
        return replace(data, normalisation=Normalisation(self.mean, self.std))
