from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from ecd_deploy.compat.torchvision import policy_operations

SIGNED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"}
UNSIGNED = {"Identity", "Posterize", "Solarize", "AutoContrast", "Equalize"}


@pytest.mark.parametrize(("kind", "largest"), [(v2.RandAugment, 30.0), (v2.TrivialAugmentWide, 135.0)])
def test_a_policys_operations_are_those_that_are_known(
    kind: type[v2.RandAugment | v2.TrivialAugmentWide], largest: float
) -> None:
    operations = policy_operations(kind, 32, 48)
    assert {operation.name for operation in operations if operation.is_signed} == SIGNED
    assert {operation.name for operation in operations if not operation.is_signed} == UNSIGNED
    by_name = {operation.name: operation.strengths for operation in operations}
    assert all(strengths.shape == (31,) for strengths in by_name.values())
    np.testing.assert_allclose(by_name["Rotate"], np.linspace(0, largest, 31), rtol=1e-6)
    assert not by_name["Equalize"].any()


def test_a_policys_default_is_its_ninth_magnitude() -> None:
    # a picture on which every operation but the identity shows, to see that the policy uses the table that is read
    image = (torch.arange(3 * 16 * 16, dtype=torch.float32) / 4).to(torch.uint8).view(3, 16, 16)
    policy = v2.RandAugment(num_ops=1)
    assert (policy.magnitude, policy.num_magnitude_bins) == (9, 31)
    known = {
        policy._apply_image_or_video_transform(
            image, operation.name, sign * strength, policy.interpolation, policy._fill
        )
        .numpy()
        .tobytes()
        for operation in policy_operations(v2.RandAugment, 16, 16)
        for strength in [float(operation.strengths[9])]
        for sign in ((1, -1) if operation.is_signed else (1,))
    }
    torch.manual_seed(0)
    assert all(policy(image).numpy().tobytes() in known for _ in range(40))
