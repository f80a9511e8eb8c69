"""What a training makes of classes of unequal size: weights of the loss, and offsets of the logits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.images import DataSplits
from ecd_deploy.errors import RecipeError, listed
from ecd_deploy.recipe.section import check_name
from ecd_deploy.recipe.train import TrainConfig


def check_classes(config: TrainConfig, data: DataSplits) -> None:
    """Refuse weights of classes that the data have not, and what needs images of each class where one has none.

    Raises:
        RecipeError: naming the key, the class and the choices.
    """
    if isinstance(config.class_weights, str):
        key = f"train.class_weights '{config.class_weights}'"
    elif config.sampling == "balanced":
        key = "train.sampling 'balanced'"
    elif config.logit_adjustment is not None:
        key = f"train.logit_adjustment {config.logit_adjustment}"
    else:
        key = None
    counts = _counts(data)
    if key is not None and not counts.all():
        absent = [name for name, count in zip(data.classes, counts.tolist(), strict=True) if not count]
        raise RecipeError(f"{key} needs training images of each class, and there are none of {listed(absent)}")
    if isinstance(config.class_weights, Mapping):
        for name in config.class_weights:
            check_name("train.class_weights", "class", name, data.classes)


def loss_weights(config: TrainConfig, data: DataSplits) -> NDArray[np.float64] | None:
    """The weight of each class in a cross-entropy, (classes,); the mean over the images that are drawn is 1.

    Inverse frequency, or Cui et al. (2019), "Class-Balanced Loss Based on Effective Number of Samples",
    <https://arxiv.org/abs/1901.05555>, equation 3; or the recipe's table.

    Raises:
        RecipeError: see `check_classes`.
    """
    check_classes(config, data)
    counts = _counts(data)
    weights: NDArray[np.float64]
    match config.class_weights:
        case None:
            return None
        case "balanced":
            weights = np.reciprocal(counts, dtype=np.float64)
        case "effective":
            beta = config.used_effective_beta
            weights = (1 - beta) / (1 - np.power(beta, counts, dtype=np.float64))
        case table:
            weights = np.array([table.get(name, 1.0) for name in data.classes])
    drawn = np.sign(counts) if config.sampling == "balanced" else counts
    weights *= drawn.sum() / (drawn @ weights)
    return weights


def logit_offsets(config: TrainConfig, data: DataSplits) -> NDArray[np.float64] | None:
    """What is added to each class's logit in training, tau log(share), (classes,).

    Menon et al. (2021), "Long-tail learning via logit adjustment", <https://arxiv.org/abs/2007.07314>, equation 10.

    Raises:
        RecipeError: see `check_classes`.
    """
    check_classes(config, data)
    if config.logit_adjustment is None:
        return None
    counts = _counts(data)
    offsets: NDArray[np.float64] = config.logit_adjustment * np.log(counts / counts.sum())
    return offsets


def _counts(data: DataSplits) -> NDArray[np.int64]:
    return np.bincount(data.train_labels, minlength=len(data.classes))
