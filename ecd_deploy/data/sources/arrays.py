"""A source whose images are in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.images import ImageSet
from ecd_deploy.data.resize import Framing
from ecd_deploy.data.sources.contract import NamedImages, SourceImages


class ArraySource:
    """A `Source` whose images are in memory already; `framing` None keeps them as they are."""

    def __init__(
        self,
        train: ImageSet,
        test: ImageSet,
        classes: tuple[str, ...],
        framing: Framing | None,
        validation: ImageSet | None = None,
    ) -> None:
        self.classes = classes
        self.has_validation = validation is not None
        self.train_labels = train.labels
        self.test_labels = test.labels
        self._train = train
        self._test = test
        self._validation = validation
        self._framing = framing

    def read(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> SourceImages:
        """Return the images at these indices, resized if asked."""
        validation = None
        if self._validation is not None:
            every = np.arange(len(self._validation))
            validation = NamedImages(self._fit(self._validation), _numbered("validation image", every))
        return SourceImages(
            train=NamedImages(self._fit(self._train.select(train)), _numbered("training image", train)),
            validation=validation,
            test=NamedImages(self._fit(self._test.select(test)), _numbered("test image", test)),
        )

    def _fit(self, images: ImageSet) -> ImageSet:
        if self._framing is None:
            return images
        return ImageSet(self._framing.apply_all(images.images), images.labels)


def _numbered(what: str, indices: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(f"{what} {index}" for index in indices.tolist())
