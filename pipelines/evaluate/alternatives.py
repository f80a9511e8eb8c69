"""The usual mistakes in preprocessing, tried on a few of the images and named where another way does far better.

Rule: an alternative is named if at least 10 in 100 more of the images are right with it, and if an exact McNemar test
of the same images gives p < 0.001. All are tried on 100 images, and those that lead there by 5 in 100 on up to 500.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.measure.statistics import mcnemar_p_value
from ecd_deploy.pipelines.evaluate.classifier import Classifier
from ecd_deploy.pipelines.evaluate.images import LabelledFiles
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.pipelines.evaluate.stream import read_pixels

_MOST_IMAGES = 500
_FIRST_IMAGES = 100
_FIRST_LEAD = 0.05
_LEAD = 0.10
_LARGEST_P = 0.001
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Alternative:
    """Another way to prepare the same pixels, and the keys of `[input]` that ask for it."""

    keys: str
    preprocessing: Preprocessing


def better_alternatives(classifier: Classifier, files: LabelledFiles, correct: NDArray[np.bool_]) -> tuple[str, ...]:
    """Name each usual way to prepare images by which far more of them are classified correctly, the best first.

    Args:
        classifier: with the preprocessing that was given.
        files: that can be used.
        correct: whether each is classified correctly as given, (N,).
    """
    tried = list(_alternatives(classifier.expectation.preprocessing))
    places = np.linspace(0, len(files) - 1, min(_MOST_IMAGES, len(files))).astype(np.int64)
    parts = max(1, len(places) // _FIRST_IMAGES)
    first, rest = places[::parts], np.delete(places, np.s_[::parts])
    if correct[places].mean() > 1 - _LEAD:
        return ()
    found = _right(classifier, files, first, tried)
    leading = [place for place, right in enumerate(found) if right.mean() - correct[first].mean() >= _FIRST_LEAD]
    more = _right(classifier, files, rest, [tried[place] for place in leading])
    named = []
    for place, right in zip(leading, more, strict=True):
        ours, theirs = correct[np.concatenate((first, rest))], np.concatenate((found[place], right))
        lost, gained = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        if theirs.mean() - ours.mean() >= _LEAD and mcnemar_p_value(lost, gained) < _LARGEST_P:
            named.append((float(theirs.mean()), float(ours.mean()), tried[place].keys))
    return tuple(
        f"of {len(places)} images {theirs:.1%} are right with {keys}, and {ours:.1%} as given: check [input]"
        for theirs, ours, keys in sorted(named, reverse=True)
    )


def _alternatives(given: Preprocessing) -> tuple[_Alternative, ...]:
    channels = len(given.mean)
    ways: list[tuple[str, dict[str, object]]] = []
    if given.channels != "grey":
        other = "bgr" if given.channels == "rgb" else "rgb"
        ways.append((f'channels = "{other}"', {"channels": other, "mean": given.mean[::-1], "std": given.std[::-1]}))
    if given.dtype != "uint8":
        none = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
        ways.append(("scale = 255 and no mean and std (pixels of 0..255)", {**none, "scale": 255.0}))
        ways.append(("scale = 1 and no mean and std (pixels of 0..1)", {**none, "scale": 1.0}))
        half = (0.5,) * channels
        ways.append(("mean and std of 0.5 (pixels of -1..1)", {"mean": half, "std": half, "scale": 1.0}))
        if channels == len(_IMAGENET_MEAN):
            order = slice(None, None, -1 if given.channels == "bgr" else 1)
            imagenet: dict[str, object] = {"mean": _IMAGENET_MEAN[order], "std": _IMAGENET_STD[order], "scale": 1.0}
            ways.append(("ImageNet's mean and std (0.485, ... and 0.229, ...)", imagenet))
    made = (_Alternative(keys, given.model_copy(update=changes)) for keys, changes in ways)
    return tuple(entry for entry in made if entry.preprocessing != given)


def _right(
    classifier: Classifier, files: LabelledFiles, places: NDArray[np.int64], tried: list[_Alternative]
) -> list[NDArray[np.bool_]]:
    """For each alternative, whether these images are classified correctly with it."""
    right: list[list[NDArray[np.bool_]]] = [[] for _ in tried]
    for start in range(0, len(places) if tried else 0, classifier.batch_size):
        chosen = places[start : start + classifier.batch_size]
        pixels = read_pixels(files, chosen.tolist(), classifier.expectation.preprocessing).pixels
        for entry, found in zip(tried, right, strict=True):
            scores = classifier.scores(entry.preprocessing.apply(pixels))
            found.append(scores.argmax(axis=1) == files.labels[chosen])
    return [np.concatenate((np.empty(0, dtype=np.bool_), *found)) for found in right]
