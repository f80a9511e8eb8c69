from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from ecd_deploy.data import ImageSet, ImageTensors, Normalisation, normalise
from ecd_deploy.data.normalisation import choose_normalisation, measure_normalisation
from ecd_deploy.errors import DataError, RecipeError
from ecd_deploy.recipe.data import DataConfig


def pixels(count: int = 3000) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 200, (count, 3, 6, 7), dtype=np.uint8)


def test_measured_values_equal_numpys_in_double_precision() -> None:
    measured = measure_normalisation(pixels())
    scaled = pixels().astype(np.float64) / 255
    np.testing.assert_allclose(measured.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(measured.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_measured_values_do_not_depend_on_the_order_of_images() -> None:
    assert measure_normalisation(pixels()) == measure_normalisation(pixels()[::-1])


def test_normalised_images_equal_torchvisions() -> None:
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(normalisation.mean, normalisation.std)])
    expected = reference(torch.from_numpy(pixels(20))).numpy()
    np.testing.assert_allclose(normalisation.apply(pixels(20)), expected, rtol=0, atol=1e-6)


def test_arrays_and_tensors_are_normalised_to_the_same_bits() -> None:
    every = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (2, 3, 1, 1))
    images = ImageSet(every, np.array([0, 1]))
    draw = np.random.default_rng(0)
    for _ in range(50):
        mean, std = (tuple(draw.uniform(0.01, 1, 3).tolist()) for _ in range(2))
        normalisation = Normalisation(mean, std)
        expected = normalise(torch.from_numpy(every), normalisation).numpy()
        found, labels = zip(*normalisation.batches(images, 1), strict=True)
        assert np.concatenate(found).tobytes() == expected.tobytes()
        assert np.concatenate(labels).tolist() == [0, 1]


@pytest.mark.parametrize("size", [1, 3, 64, 100])
def test_batches_of_any_size_hold_every_image_once_in_order(size: int) -> None:
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    images = ImageSet(pixels(130), np.arange(130))
    found, labels = zip(*normalisation.batches(images, size), strict=True)
    assert [len(part) for part in found] == [min(size, 130 - start) for start in range(0, 130, size)]
    assert all(part.flags["C_CONTIGUOUS"] for part in found)
    np.testing.assert_array_equal(np.concatenate(found), normalisation.apply(images.images))
    assert np.concatenate(labels).tolist() == list(range(130))


def test_tensors_share_the_memory_of_the_arrays() -> None:
    images = ImageSet(pixels(5), np.arange(5))
    tensors = ImageTensors.of(images)
    assert np.shares_memory(tensors.images.numpy(), images.images)
    assert np.shares_memory(tensors.labels.numpy(), images.labels)


def test_given_values_are_taken_and_must_fit_the_channels() -> None:
    config = DataConfig(source="digits", mean=(0.5,), std=(0.25,))
    assert choose_normalisation(config, pixels()[:, :1]) == Normalisation((0.5,), (0.25,))
    with pytest.raises(RecipeError, match=r"data\.mean: 1 values are given, but the images have 3 channel"):
        choose_normalisation(config, pixels())


def test_a_channel_of_one_value_is_refused() -> None:
    images = pixels()
    images[:, 1] = 9
    with pytest.raises(DataError, match="channel 1 has the same value"):
        measure_normalisation(images)


def test_image_sets_of_another_type_or_length_are_refused() -> None:
    with pytest.raises(DataError, match="must be uint8"):
        ImageSet(np.zeros((2, 3, 4, 4)), np.zeros(2, dtype=np.int64))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"must be int64 of shape \(2,\)"):
        ImageSet(np.zeros((2, 3, 4, 4), dtype=np.uint8), np.zeros(3, dtype=np.int64))
