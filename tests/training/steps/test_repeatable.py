"""The operations of each variant's training step are the same in every step, with the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from ecd_deploy.training.steps.cuda_graph import GraphedWork
from ecd_deploy.training.steps.optimizer import set_rate
from ecd_deploy.training.steps.repeatable import find_change
from tests.training.launch_count import as_on_cuda
from tests.training.repeated_steps import do_steps, make_batch, make_work
from tests.training.tape import TapeRecorder
from tests.triton_launches import standing_in
from tests.variants import VARIANTS


@pytest.fixture(autouse=True)
def _as_on_cuda() -> Iterator[None]:
    with as_on_cuda(), standing_in():
        yield


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_steps_are_the_same_operations_and_a_recording_of_one_is_every_other(variant: str) -> None:
    works = [make_work(variant), make_work(variant)]
    recorder = TapeRecorder()
    graphed = GraphedWork(works[1], recorder)
    do_steps(works[0], works[0])
    do_steps(works[1], graphed)
    assert recorder.recordings == 2
    for eager, recorded in zip(works[0].changed(), works[1].changed(), strict=True):
        assert torch.equal(eager, recorded)


@pytest.mark.parametrize(
    "variant", [name if name in ("plain", "ecd") else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
def test_a_recording_of_fewer_launches_is_every_step(variant: str) -> None:
    works = [make_work(variant), make_work(variant)]
    graphed = GraphedWork(works[1], TapeRecorder(), fuses=True)
    do_steps(works[0], works[0])
    do_steps(works[1], graphed)
    assert graphed.saved > 0
    for eager, recorded in zip(works[0].changed(), works[1].changed(), strict=True):
        torch.testing.assert_close(recorded, eager, rtol=1e-4, atol=1e-6)


def test_the_step_s_numbers_are_the_only_ones_that_change() -> None:
    """The planted fault: a rate that is no tensor is a number among the operations, and its change is found."""
    work = make_work("ecd", rate_on_device=False)
    step = iter(range(9))

    def do() -> None:
        number = next(step)
        set_rate(work.optimizer, 0.1 / (number + 1))
        work(make_batch(number))

    assert (
        find_change(work.model, do) == "its operations differ from step to step, the first at aten._fused_sgd_.default"
    )
    steady = make_work("ecd")
    assert find_change(steady.model, lambda: steady(make_batch(0))) is None


def test_another_size_of_batch_is_other_operations() -> None:
    work = make_work("plain")
    whole = make_batch(0)
    less = replace(whole, images=whole.images[:2], labels=whole.labels[:2], indices=whole.indices[:2], step_images=2)
    batches = iter((whole, less))
    assert "its operations differ" in (find_change(work.model, lambda: work(next(batches))) or "")
