"""Every planted leak is found, by the check that is made for it."""

from __future__ import annotations

import re

import pytest
from torch import Tensor

from benchmarks.model_leaks import MODEL_LEAKS, ModelLeak
from ecd_deploy.distill import ECDModel
from ecd_deploy.errors import SplitError
from ecd_deploy.split import split_student


@pytest.mark.parametrize("leak", MODEL_LEAKS, ids=lambda leak: leak.name)
def test_the_leak_is_found(joint: ECDModel, images: Tensor, leak: ModelLeak) -> None:
    leak.plant(joint, images)
    with pytest.raises(SplitError) as caught:
        split_student(joint, images)
    assert leak.caught_by in re.findall(r"^  (\w+): ", str(caught.value), flags=re.MULTILINE)
