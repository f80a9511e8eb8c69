from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ecd_deploy.data import Batch, ImageSet, ImageTensors, Normalisation, TrainBatches, eval_batches, normalise, tensors
from ecd_deploy.data.augmentation.augmenter import Augmenter
from ecd_deploy.data.augmentation.crop import crop_and_mirror
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.augment import AugmentConfig
from tests.fake_cuda import Crossings

AUGMENTER = Augmenter(
    AugmentConfig(policy="randaugment", contrast=0.5, random_erasing=0.5, mixup=0.4, cutmix=1.0), (), 7, seed=3
)
NORMALISATION = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def images(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels.numpy(), np.arange(count) % 7)


def unequal(count: int) -> ImageSet:
    """Of class 2 there are two images, of class 1 a fifth."""
    whole = images(count)
    labels = np.where(np.arange(count) % 5 == 0, 1, 0)
    labels[[3, 8]] = 2
    return ImageSet(whole.images, labels)


def train_batches(
    count: int, batch_size: int, *, seed: int = 0, index: int = 0, processes: int = 1, balanced: bool = False
) -> TrainBatches:
    data = unequal(count) if balanced else images(count)
    plan = StepPlan(
        images=count,
        batch_size=batch_size,
        seed=seed,
        process_index=index,
        process_count=processes,
        balanced=data.labels if balanced else None,
    )
    return TrainBatches(data, NORMALISATION, plan, crop_padding=2, horizontal_flip=True)


def test_an_epoch_holds_every_image_once_with_its_label() -> None:
    batches = list(train_batches(50, 16).epoch(1))
    indices = torch.cat([batch.indices for batch in batches])
    assert sorted(indices.tolist()) == list(range(50))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), indices % 7)
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]


@pytest.mark.parametrize(("count", "steps"), [(48, 3), (49, 3), (50, 4)])
def test_a_last_step_of_one_image_is_left_out(count: int, steps: int) -> None:
    batches = train_batches(count, 16)
    assert len(batches) == steps == len(list(batches.epoch(1)))


def test_order_changes_with_the_epoch_and_the_seed_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([batch.indices for batch in train_batches(64, 16, seed=seed).epoch(epoch)]).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) != list(range(64))


def test_a_balanced_epoch_has_as_many_images_of_each_class_and_augments_repeated_ones_anew() -> None:
    data = unequal(50)
    batches = list(train_batches(50, 16, balanced=True).epoch(1))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    labels = torch.cat([batch.labels for batch in batches])
    indices = torch.cat([batch.indices for batch in batches])
    assert torch.equal(labels, torch.from_numpy(data.labels)[indices])
    assert sorted(torch.bincount(labels).tolist()) == [16, 17, 17]
    pixels = torch.cat([batch.images for batch in batches])
    for index in (3, 8):
        repeats = pixels[indices == index]
        assert len(repeats) == 8 or len(repeats) == 9
        assert len({tuple(one.flatten().tolist()) for one in repeats}) > 5
    assert not torch.equal(labels, labels.sort().values)


@pytest.mark.parametrize("balanced", [False, True])
def test_an_epoch_entered_in_its_middle_goes_on_alike(balanced: bool) -> None:
    whole = list(train_batches(50, 16, balanced=balanced).epoch(2))
    rest = list(train_batches(50, 16, balanced=balanced).epoch(2, first_step=2))
    assert len(rest) == 2
    for expected, found in zip(whole[2:], rest, strict=True):
        assert torch.equal(expected.images, found.images)
        assert torch.equal(expected.indices, found.indices)


@pytest.mark.parametrize("first_step", [0, 2])
@pytest.mark.parametrize("steps", [2, 3, 100])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("augmenter", [None, AUGMENTER], ids=["crop", "augmenter"])
def test_the_images_of_several_steps_augmented_at_once_are_those_of_each(
    steps: int, first_step: int, processes: int, augmenter: Augmenter | None
) -> None:
    data, step_bytes = images(90), 16 * (3 + 24) * 8 * 8  # pixels and three int64 a place

    def make(augmented_bytes: int) -> list[Batch]:
        batches = TrainBatches(
            data,
            NORMALISATION,
            StepPlan(images=90, batch_size=16, seed=3, process_index=processes - 1, process_count=processes),
            crop_padding=2,
            horizontal_flip=True,
            augmenter=augmenter,
            augmented_bytes=augmented_bytes,
        )
        return list(batches.epoch(2, first_step))

    for expected, found in zip(make(0), make(steps * step_bytes), strict=True):
        assert all(map(torch.equal, expected.tensors(), found.tensors()))
        assert len(found.tensors()) == (3 if augmenter is None else 4)
        assert expected.step_images == found.step_images


def test_the_parts_of_a_batch_keep_what_belongs_to_each_image() -> None:
    batch = Batch(torch.arange(7.0), torch.arange(7), torch.arange(7), step_images=14, shares=torch.arange(7.0) / 7)
    parts = batch.split(3)
    assert [len(part) for part in parts] == [3, 2, 2]
    assert all(part.step_images == 14 for part in parts)
    for pieces, whole in zip(zip(*(part.tensors() for part in parts), strict=True), batch.tensors(), strict=True):
        assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(parts[1].targets, batch.targets[3:5])


def test_no_more_images_are_augmented_at_once_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def measured(pixels: torch.Tensor, indices: torch.Tensor, draws: torch.Tensor, **options: Any) -> torch.Tensor:
        sizes.append(len(indices))
        return crop_and_mirror(pixels, indices, draws, **options)

    monkeypatch.setattr("ecd_deploy.data.batches.memory.crop_and_mirror", measured)
    step_bytes = 16 * (3 + 24) * 8 * 8
    for augmented_bytes in (0, step_bytes, 3 * step_bytes - 1, 3 * step_bytes):
        batches = TrainBatches(
            images(90),
            NORMALISATION,
            StepPlan(images=90, batch_size=16, seed=0),
            crop_padding=2,
            horizontal_flip=True,
            augmented_bytes=augmented_bytes,
        )
        sizes.clear()
        list(batches.epoch(1))
        most = max(16, augmented_bytes // step_bytes * 16)
        assert max(sizes) == most
        assert sum(sizes) == 90


@pytest.mark.parametrize(("processes", "balanced"), [(2, False), (3, False), (2, True)])
def test_processes_share_the_steps_of_one(processes: int, balanced: bool) -> None:
    alone = list(train_batches(53, 16, balanced=balanced).epoch(1))
    each = (train_batches(53, 16, index=i, processes=processes, balanced=balanced) for i in range(processes))
    shares = zip(*(batches.epoch(1) for batches in each), strict=True)
    for expected, parts in zip(alone, shares, strict=False):
        assert torch.equal(torch.cat([part.images for part in parts]), expected.images)
        assert torch.equal(torch.cat([part.indices for part in parts]), expected.indices)
        assert all(part.step_images == len(expected) for part in parts)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="1 training images in batches of 16"):
        train_batches(1, 16)
    with pytest.raises(DataError, match=r"2 process\(es\)"):
        train_batches(50, 2, processes=2)


def test_parts_of_a_batch_keep_everything_and_two_images_each() -> None:
    batch = next(train_batches(50, 9).epoch(1))
    parts = batch.split(8)
    assert [len(part) for part in parts] == [3, 2, 2, 2]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert all(part.step_images == 9 for part in parts)
    assert batch.split(1)[0].indices.tolist() == batch.indices.tolist()


def test_evaluation_goes_through_the_images_in_order_and_unchanged() -> None:
    data = ImageTensors.of(images(23))
    batches = list(eval_batches(data, NORMALISATION, 10))
    assert [len(batch) for batch in batches] == [10, 10, 3]
    assert torch.equal(torch.cat([batch.images for batch in batches]), normalise(data.images, NORMALISATION))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), data.labels)
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(23))


def test_evaluation_is_shared_out_between_processes_even_if_some_get_nothing() -> None:
    def indices(index: int) -> list[int]:
        data = ImageTensors.of(images(2))
        batches: list[Batch] = list(eval_batches(data, NORMALISATION, 10, process_index=index, process_count=3))
        return [int(i) for batch in batches for i in batch.indices]

    assert [indices(0), indices(1), indices(2)] == [[0], [1], []]


def test_on_an_accelerator_no_batch_needs_the_host() -> None:
    """But for what is copied once: the images, their labels, and the normalisation's numbers."""
    found = Crossings()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            data = ImageSet(np.empty((50, 3, 8, 8), dtype=np.uint8), np.zeros(50, dtype=np.int64))
            batches = TrainBatches(
                data,
                NORMALISATION,
                StepPlan(images=50, batch_size=16, seed=0),
                crop_padding=2,
                horizontal_flip=True,
                device=torch.device("cuda"),
            )
            list(batches.epoch(1))
            with found:
                made = list(batches.epoch(2))
    finally:
        tensors._by_channel.cache_clear()
    assert [tuple(batch.images.shape) for batch in made] == [(16, 3, 8, 8)] * 3 + [(2, 3, 8, 8)]
    assert {batch.images.device.type for batch in made} == {"cuda"}
    assert found.names == set()
