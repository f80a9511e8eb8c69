# mypy: untyped-calls-exclude=accelerate

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accelerate.accelerator import Accelerator
from torch import nn

from ecd_deploy.compat.accelerate import forget_earlier_training, forget_preparation


@pytest.fixture(autouse=True)
def _no_other_training() -> Iterator[None]:
    forget_earlier_training()
    yield
    forget_earlier_training()


def test_an_earlier_training_does_not_decide_about_the_precision_of_the_next() -> None:
    assert Accelerator(mixed_precision="no").mixed_precision == "no"
    with pytest.raises(ValueError, match="mixed_precision"):
        Accelerator(mixed_precision="bf16")
    forget_earlier_training()
    assert Accelerator(mixed_precision="bf16").mixed_precision == "bf16"


def test_a_model_that_was_prepared_can_be_prepared_for_another_precision() -> None:
    model = nn.Linear(3, 2)
    Accelerator(mixed_precision="no").prepare(model)
    forget_earlier_training()
    assert "forward" not in vars(Accelerator(mixed_precision="bf16").prepare(model))
    forget_preparation(model)
    assert "forward" in vars(Accelerator(mixed_precision="bf16").prepare(model))
