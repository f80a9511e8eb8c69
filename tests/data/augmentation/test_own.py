from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ecd_deploy.data.augmentation.own import OwnTransform, apply_own
from ecd_deploy.errors import RecipeError

HERE = "tests.data.augmentation.own_transforms"


def test_each_image_has_its_own_draws_whatever_was_drawn_before() -> None:
    images = torch.full((12, 3, 8, 8), 90, dtype=torch.uint8)
    transforms = (OwnTransform.of(f"{HERE}:noisy"), OwnTransform.of(f"{HERE}:inverting"))
    whole = apply_own(transforms, images, np.arange(12), seed=0, epoch=1)
    assert len(torch.unique(whole[:, 0, 0, 0])) > 4
    torch.rand(3)
    random.random()
    states = torch.get_rng_state(), random.getstate(), repr(np.random.get_state(legacy=False))  # noqa: NPY002
    parts = [apply_own(transforms, images[:4], np.arange(start, start + 4), seed=0, epoch=1) for start in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(apply_own(transforms, images, np.arange(12), seed=0, epoch=2), whole)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), repr(np.random.get_state(legacy=False))) == states[1:]  # noqa: NPY002


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("noisy", r"'noisy': expected package\.module:factory"),
        ("no_such_package:noisy", "module 'no_such_package' cannot be imported.*nor on PYTHONPATH"),
        (f"{HERE}:noizy", r"has no 'noizy' \(did you mean 'noisy'\?\)"),
        (f"{HERE}:broken", "calling it failed with .*no such file: masks.npz"),
        (f"{HERE}:nothing", "returned NoneType, which cannot be called"),
        (f"{HERE}:failing", r"failed on an image uint8 \(3, 8, 8\) with .*index 7"),
        (f"{HERE}:floating", r"must give an image uint8 \(3, 8, 8\), and gave float32 \(3, 8, 8\)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name: str, expected: str) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(RecipeError, match=expected) as caught:
        apply_own((OwnTransform.of(name),), images, np.arange(2), seed=0, epoch=1)
    assert str(caught.value).startswith("augment.transforms '")
    assert "\n" not in str(caught.value)
