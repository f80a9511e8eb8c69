# mypy: untyped-calls-exclude=torch

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.gpu import correctness
from benchmarks.gpu.correctness import TOLERANCES, VARIANTS, Comparison
from ecd_deploy.distill import DynamicConv2d

CPU = torch.device("cpu")


def _by_arithmetic(name: str) -> dict[str, Comparison]:
    return {one.arithmetic: one for one in correctness.compare(name, VARIANTS[name], CPU, tiny=True)}


def test_rounding_passes_and_lower_precision_shows() -> None:
    found = _by_arithmetic("ecd")
    assert found.keys() == TOLERANCES.keys()
    assert all(one.passed for one in found.values())
    assert found["bf16"].whole > 100 * found["fp32"].whole


@pytest.mark.parametrize("error", [0.05, math.nan])
def test_a_wrong_gradient_of_one_parameter_is_named(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    true_forward = DynamicConv2d.forward

    def forward(self: DynamicConv2d, features: torch.Tensor) -> torch.Tensor:
        out = true_forward(self, features)
        if out.dtype == torch.float32 and out.requires_grad:
            out.register_hook(lambda gradient: gradient * (1 + error))
        return out

    monkeypatch.setattr(DynamicConv2d, "forward", forward)
    found = _by_arithmetic("ecd")["fp32"]
    assert not found.passed
    assert found.worst.startswith("teacher.") or math.isnan(error)  # it spreads to the student
