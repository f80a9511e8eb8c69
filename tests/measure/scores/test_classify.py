"""What a device does to an image is what was done to it where the bundle was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.measure.device.runner.classify import read_pixels
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing


@pytest.mark.parametrize("resize", [None, "stretch", 40, (28, 40), (30, 44)])
@pytest.mark.parametrize("size", [(60, 45), (45, 60), (40, 28), (200, 30), (7, 9)])
def test_images_are_brought_to_size_as_by_an_evaluation(
    tmp_path: Path, size: tuple[int, int], resize: int | str | tuple[int, int] | None
) -> None:
    given = {"height": 28, "width": 40, "resize": resize, "channels": "rgb", "scale": 1.0, "layout": "nchw"}
    preprocessing = Preprocessing.model_validate({**given, "mean": (0.0,) * 3, "std": (1.0,) * 3, "dtype": "float32"})
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    found = read_pixels(str(tmp_path / "photo.png"), preprocessing.model_dump(mode="json"))
    # without a word about other sizes, an image is stretched to an input that is no square
    expected = (preprocessing if resize else preprocessing.model_copy(update={"resize": "stretch"})).fit(
        Image.fromarray(pixels)
    )
    np.testing.assert_array_equal(found[0], np.asarray(expected))
