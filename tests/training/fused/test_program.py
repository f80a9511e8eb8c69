from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from ecd_deploy.training.fused.program import Call, perform, record


def test_a_program_does_again_what_was_done_on_the_memory_that_is_there_then() -> None:
    """With views, operations in place, lists of tensors, an `out`, and random numbers."""
    given, state, kept = torch.randn(4, 6), torch.zeros(3, 4), torch.zeros(2, 2)

    def work() -> None:
        half = given.t()[::2]
        half = half + torch.rand_like(half)
        half[1].mul_(-1)
        torch.mm(half[:2], half[:2].t(), out=kept)
        first, second = torch.stack([half, half.relu()]).unbind()
        torch._foreach_add_([state, kept], [first * second, torch.ones(2, 2)])

    torch.manual_seed(0)
    program = record(work)
    results = []
    for do in (work, program.run):
        torch.manual_seed(1)
        given.copy_(torch.arange(24.0).view(4, 6))
        state.zero_()
        do()
        results.append((state.clone(), kept.clone()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][0].norm() > 0


def test_results_are_let_go_of_after_their_last_use() -> None:
    given = torch.ones(1000)

    def work() -> None:
        value = given
        for _ in range(20):
            value = value + 1
        given.copy_(value)

    most = 0

    def counting(call: Call, held: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
        nonlocal most
        most = max(most, len(held))
        return perform(call, held)

    record(work).run(counting)
    assert most == 2
    assert torch.equal(given, torch.full((1000,), 41.0))


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda: float(torch.ones(2).sum()), "gives the host a value"),
        (lambda: torch.ones(2).to_sparse() * 2, "sparse"),
    ],
)
def test_what_cannot_be_done_again_is_refused(work, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RuntimeError, match=reason):
        record(work)
