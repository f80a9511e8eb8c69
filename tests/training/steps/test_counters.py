from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill.batch_norm import TeacherBatchNorm2d
from ecd_deploy.training.steps import counters
from ecd_deploy.training.steps.counters import counted_at_once
from tests.training.launch_count import Launches, as_on_cuda


class Network(nn.Module):
    """Norms that are called once, twice and never; one of each kind that is to be left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.never = (nn.BatchNorm2d(3) for _ in range(3))
        self.teacher = TeacherBatchNorm2d.taking_over(nn.BatchNorm2d(3))
        self.averaging = nn.BatchNorm2d(3, momentum=None)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.without = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        for norm in (self.once, self.twice, self.twice, self.teacher, self.averaging, self.frozen, self.without):
            images = norm(images) + 1
        return images


def test_counters_and_statistics_are_those_of_counting_one_by_one() -> None:
    torch.manual_seed(0)
    models = [Network()]
    models.append(copy.deepcopy(models[0]))
    for batch in torch.randn(2, 2, 3, 5, 5):
        with as_on_cuda():
            expected = models[0](batch)
            with Launches() as launches, counted_at_once(models[1]):
                found = models[1](batch)
        assert torch.equal(found, expected)
        assert launches.counts["_foreach_add_"] == 1
    assert models[1].twice.num_batches_tracked == 4
    for name, buffer in models[0].named_buffers():
        assert torch.equal(models[1].get_buffer(name), buffer), name


def test_a_forward_that_fails_leaves_the_counters_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Network()
    monkeypatch.setattr(counters, "_is_worthwhile", lambda _model: True)
    own = model.once.num_batches_tracked
    with pytest.raises(RuntimeError), counted_at_once(model):
        model(torch.zeros(2, 4, 5, 5))
    assert model.once.num_batches_tracked is own
    assert own == 0
    assert not model.once._forward_pre_hooks


def test_on_a_cpu_nothing_is_changed() -> None:
    model = Network()
    with counted_at_once(model):
        assert model.once.num_batches_tracked is not None
        assert not model.once._forward_pre_hooks
