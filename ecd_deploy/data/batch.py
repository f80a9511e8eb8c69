"""What a training step gets: normalised images and their labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ecd_deploy.data.plan import LEAST_SHARE


@dataclass(frozen=True)
class Batch:
    """Images of one step on this process.

    Attributes:
        images: float32, (n, C, H, W), normalised.
        labels: int64, (n,).
        indices: int64, (n,), positions in the split.
        step_images: images of the step over all processes.
        shares: of each class in each image, float32, (n, classes), where images are mixed; else None.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    step_images: int
    shares: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def targets(self) -> Tensor:
        """What a cross-entropy takes: the shares of the classes where images are mixed, else the labels."""
        return self.labels if self.shares is None else self.shares

    def tensors(self) -> tuple[Tensor, ...]:
        """Those of the batch; how many is the same for every batch of a training."""
        return (self.images, self.labels, self.indices, *(() if self.shares is None else (self.shares,)))

    def split(self, parts: int) -> tuple[Batch, ...]:
        """Cut into at most `parts` batches of nearly equal size, none smaller than two images."""
        parts = max(1, min(parts, len(self) // LEAST_SHARE))
        pieces = zip(*(tensor.tensor_split(parts) for tensor in self.tensors()), strict=True)
        return tuple(self.like(piece) for piece in pieces)

    def like(self, tensors: tuple[Tensor, ...]) -> Batch:
        """The same with other tensors, in the order of `tensors`."""
        images, labels, indices, *shares = tensors
        return Batch(images, labels, indices, self.step_images, *shares)
