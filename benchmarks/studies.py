"""The studies whose results are committed, by the name of their files in `results/`.

Each sets ECD against its student alone on real images, at a size that two CPU cores train. `python -m benchmarks NAME`
runs what is not done yet in `studies/`, as `ecd-deploy compare STUDY --jobs 2 --resume` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

STUDIES: Final[Mapping[str, str]] = {
    "reduced_study": "reduced-cifar100",  # all images
    "few_images_study": "reduced-cifar100-few",  # few images, for which the student has room
    "short_study": "reduced-cifar100-short",  # few steps on all images: how much of the gain on few is due to the steps
    "augmented_study": "reduced-cifar100-augmented",  # few images, beside augmentation
    "sites_study": "reduced-cifar100-sites",  # where the features of figure 3 are taken; balanced kernels
    "pretrained_study": "pretrained-cifar100",  # very few images, from pretrained weights
}
