# mypy: untyped-calls-exclude=accelerate

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.acceleration import build_accelerator, prepared
from ecd_deploy.training.steps.optimizer import build_optimizer


class _Watched(nn.Linear):
    """Notes in which type it computes."""

    dtype: torch.dtype | None = None

    def forward(self, features: Tensor) -> Tensor:
        found = super().forward(features)
        self.dtype = found.dtype
        return found


def test_a_model_can_be_prepared_again_in_another_precision_and_is_left_as_it_was() -> None:
    model = nn.Sequential(_Watched(3, 2))
    before = vars(model).keys() - set()
    precisions: tuple[tuple[Literal["no", "bf16"], torch.dtype], ...] = (
        ("no", torch.float32),
        ("bf16", torch.bfloat16),
        ("no", torch.float32),
    )
    for precision, expected in precisions:
        config = TrainConfig(mixed_precision=precision)
        with prepared(build_accelerator(config), model, build_optimizer(model, config)) as (wrapped, _):
            assert wrapped(torch.zeros(2, 3)).dtype == torch.float32
        assert model[0].dtype == expected
        assert vars(model).keys() == before
