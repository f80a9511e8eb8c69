"""`start.json`: which weights the student of a run started from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ecd_deploy.data import DataSplits, Normalisation
from ecd_deploy.pipelines.record.names import START_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.recipe.student import PRETRAINED
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

    schema_version: Literal[1] = 1
    weights: str
    origin: str
    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def source(self) -> str:
        """In words that can leave this machine: without its folders."""
        if self.weights == PRETRAINED:
            return self.origin
        path = Path(self.weights)
        return f"the {'file' if path.suffix == '.safetensors' else 'run'} {path.name}"

    def normalised(self, data: DataSplits) -> DataSplits:
        """The same images, normalised as the weights need it."""
        return replace(data, normalisation=Normalisation(self.mean, self.std))


def read_start(directory: RunDirectory) -> Start | None:
    """What a run started from; None where that was fresh weights.

    Raises:
        ArtefactError: the file was changed.
    """
    return directory.read_json(START_NAME, Start) if START_NAME in directory.manifest.files else None
