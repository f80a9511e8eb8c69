"""The files of an evaluation: how they are written, and read back only as they were written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ecd_deploy.data.imagefolder.listing import printable
from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.files import is_partial, read_verified, write_atomic
from ecd_deploy.measure.classification import confusion_counts
from ecd_deploy.measure.scored import ScoredImages
from ecd_deploy.pipelines.evaluate.result import Evaluation

EVALUATION_NAME: Final = "evaluation.json"
PROBABILITIES_NAME: Final = "probabilities.safetensors"
PREDICTIONS_NAME: Final = "predictions.csv"
CONFUSION_NAME: Final = "confusion.csv"


def check_output(folder: Path) -> None:
    """Check that results may be written to a folder: it is absent or empty, or holds an evaluation, to be replaced.

    Raises:
        UsageError: it holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is not a folder")
    if not folder.is_dir() or (folder / EVALUATION_NAME).is_file():
        return
    if any(not is_partial(path) for path in folder.iterdir()):
        raise UsageError(f"--out {folder} holds something else than an evaluation: choose another folder")


def probabilities_file(scored: ScoredImages) -> bytes:
    """Probabilities float32 (N, classes) and labels int64 (N,), with the names of the classes as metadata."""
    tensors: dict[str, NDArray[Any]] = {
        "probabilities": np.ascontiguousarray(scored.probabilities),
        "labels": scored.labels,
    }
    return save(tensors, metadata={"classes": json.dumps(scored.classes)})


def write_evaluation(folder: Path, evaluation: Evaluation, names: Sequence[str], scored: ScoredImages) -> None:
    """Write all files, `evaluation.json` last.

    Raises:
        ArtefactError: the folder cannot be written.
    """
    made = {
        PROBABILITIES_NAME: probabilities_file(scored),
        PREDICTIONS_NAME: _predictions(names, scored),
        CONFUSION_NAME: _confusion(scored.classes, confusion_counts(scored)),
        EVALUATION_NAME: evaluation.to_json(),
    }
    for name, data in made.items():
        write_atomic(folder / name, data)


def _predictions(names: Sequence[str], scored: ScoredImages) -> bytes:
    confidence = scored.probabilities.max(axis=1)
    rows = (
        (
            printable(name),
            scored.classes[label],
            scored.classes[choice],
            f"{confidence[place]:.6f}",
            int(label == choice),
            *(column.values[place] for column in scored.slices),
        )
        for place, (name, label, choice) in enumerate(zip(names, scored.labels, scored.chosen, strict=True))
    )
    return _csv(("path", "label", "chosen", "confidence", "correct", *(column.name for column in scored.slices)), rows)


def _confusion(classes: Sequence[str], counts: NDArray[np.int64]) -> bytes:
    return _csv(("class", *classes), ((name, *row) for name, row in zip(classes, counts.tolist(), strict=True)))


def _csv(header: Iterable[object], rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def read_evaluation(folder: Path) -> tuple[Evaluation, NDArray[np.float32]] | None:
    """What an evaluation left, with its probabilities (N, classes); None where there is none, or it was changed."""
    try:
        evaluation = Evaluation.from_json((folder / EVALUATION_NAME).read_bytes(), "no evaluation")
        data = read_verified(folder / PROBABILITIES_NAME, evaluation.probabilities_sha256)
        return evaluation, load(data)["probabilities"]
    except (OSError, ArtefactError, SafetensorError, KeyError):
        return None
