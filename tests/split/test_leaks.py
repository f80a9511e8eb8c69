"""Every planted leak is found, by the check that is made for it.

The quick run takes one leak for each check, and all of those checks that `test_planted_faults.py` leaves out.
"""

from __future__ import annotations

import re

import pytest
from torch import Tensor

from benchmarks.encoded_leaks import ENCODED_LEAKS
from benchmarks.model_leaks import MODEL_LEAKS, ModelLeak
from ecd_deploy.distill import ECDModel
from ecd_deploy.errors import SplitError
from ecd_deploy.split import split_student

FIRST = {leak.caught_by: leak for leak in reversed(MODEL_LEAKS)}
ONLY_HERE = {"graph", "train_mode"}


@pytest.mark.parametrize(
    "leak",
    [
        pytest.param(leak, marks=() if leak in FIRST.values() or leak.caught_by in ONLY_HERE else pytest.mark.slow)
        for leak in (*MODEL_LEAKS, *ENCODED_LEAKS)
        if leak.caught_by != "construction"  # needs a factory
    ],
    ids=lambda leak: leak.name,
)
def test_the_leak_is_found(joint: ECDModel, images: Tensor, leak: ModelLeak) -> None:
    leak.plant(joint, images)
    with pytest.raises(SplitError) as caught:
        split_student(joint, images)
    assert leak.caught_by in re.findall(r"^  (\w+): ", str(caught.value), flags=re.MULTILINE)
