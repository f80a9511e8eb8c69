from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from ecd_deploy.data import ImageSet, Normalisation
from ecd_deploy.data.normalisation import choose_normalisation, measure_normalisation
from ecd_deploy.errors import DataError, RecipeError
from ecd_deploy.recipe.data import DataConfig


def pixels(count: int = 3000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 200, (count, 3, 6, 7), dtype=torch.uint8, generator=generator)


def test_measured_values_equal_numpys_in_double_precision() -> None:
    measured = measure_normalisation(pixels())
    scaled = pixels().numpy().astype(np.float64) / 255
    np.testing.assert_allclose(measured.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(measured.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_measured_values_do_not_depend_on_the_order_of_images() -> None:
    assert measure_normalisation(pixels()) == measure_normalisation(pixels().flip(0))


def test_normalised_images_equal_torchvisions() -> None:
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(normalisation.mean, normalisation.std)])
    torch.testing.assert_close(normalisation.apply(pixels(20)), reference(pixels(20)), rtol=0, atol=1e-6)


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
        ImageSet(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match=r"must be int64 of shape \(2,\)"):
        ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
