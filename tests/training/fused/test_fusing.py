"""That launches are used only where they compute what torch's operations do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ecd_deploy.distill.convolution.triton import support
from ecd_deploy.training.fused import fusing, operators
from ecd_deploy.training.fused.fusing import lightened
from ecd_deploy.training.fused.program import record
from tests.training.launch_count import as_on_cuda
from tests.training.repeated_steps import make_batch, make_work
from tests.triton_launches import interpreting, standing_in


def lighten() -> tuple[int, list[Tensor], list[Tensor]]:
    """What a step of ECD is saved, and what it changes: by the step, and by what took its place."""
    works = [make_work("ecd"), make_work("ecd")]
    batch = make_batch(0)
    with as_on_cuda():
        for work in works:
            work.losses.begin_step(1, len(batch))
            work(batch)
        before = [tensor.clone() for tensor in works[1].changed()]
        found = lightened(lambda: works[1](batch), works[1].changed(), works[1].optimizer.zero_grad)
        with torch.no_grad():
            for tensor, value in zip(works[1].changed(), before, strict=True):
                tensor.copy_(value)
        works[0](batch)
        found.run()
    return found.saved, works[0].changed(), works[1].changed()


@pytest.mark.needs("triton")
@pytest.mark.slow
def test_an_interpreted_step_is_the_step(caplog: pytest.LogCaptureFixture) -> None:
    with interpreting():
        saved, expected, found = lighten()
    assert not caplog.messages
    assert saved > 30
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_without_a_gpu_the_step_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    saved, expected, found = lighten()
    assert saved == 0
    assert "launched one by one: Triton needs a GPU" in caplog.text or "is not installed" in caplog.text
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("launch", [operators.NORMALISE, operators.DIFFERENTIATE], ids=str)
def test_a_launch_that_is_wrong_is_not_used(
    launch: Any, place: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: the reference has another number in a result, or in what is changed in place."""
    reference = operators.REFERENCES[launch]

    def wrong(*arguments: Any) -> Any:
        results = reference(*arguments)
        numbers = arguments[4] if launch is operators.NORMALISE and place == 3 else results[place]
        if numbers.numel():
            numbers.view(-1)[-1] += 0.01 * numbers.norm() + 0.01
        return results

    monkeypatch.setitem(operators.REFERENCES, launch, wrong)
    with standing_in():
        saved, expected, found = lighten()
    assert saved == 0
    assert "differs from torch's own result by" in caplog.text
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("fault", [ValueError("too many registers\nand more"), RuntimeError("no")])
def test_what_fails_is_not_used(
    fault: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise fault

    monkeypatch.setattr(fusing, "fuse", fail)
    assert lighten()[0] == 0
    assert f"{type(fault).__name__}: {str(fault).partition(chr(10))[0]}" in caplog.text


def test_operations_that_are_not_seen_are_found_by_what_the_step_changes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: a recording without the updates of the optimiser."""

    def blind(work: Callable[[], None]) -> Any:
        program = record(work)
        calls = tuple(call for call in program.calls if "_fused_sgd" not in str(call.operator))
        return type(program)(calls, program.outside)

    monkeypatch.setattr(fusing, "record", blind)
    monkeypatch.setattr(support, "find_lack", lambda _device, _dtype: None)
    with standing_in():
        assert lighten()[0] == 0
    assert "is not what the step makes of it" in caplog.text
