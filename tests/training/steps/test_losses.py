from __future__ import annotations

import pytest
import torch
from accelerate.accelerator import Accelerator
from torch.nn import functional

from ecd_deploy.distill import LossTerm, LossTerms, Objective, TrainingOutputs
from ecd_deploy.errors import TrainingError
from ecd_deploy.training.steps.losses import EpochLosses


def test_means_weigh_images_and_not_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = EpochLosses(Accelerator())
    losses.begin_epoch(1)
    logits, labels = torch.randn(2, 10, 5, generator=generator), torch.arange(10) % 5
    for step, part in enumerate((slice(0, 7), slice(7, 10)), start=1):
        outputs = TrainingOutputs(logits[0, part], logits[1, part])
        terms = Objective(label_smoothing=0.1)(outputs, labels[part])
        losses.begin_step(step, len(labels[part]))
        losses.add(terms.total, terms, len(labels[part]))
    heads = [functional.cross_entropy(head, labels, label_smoothing=0.1).item() for head in logits]
    means = losses.means()
    assert (means.total, means.student, means.teacher) == pytest.approx((sum(heads), *heads), rel=1e-5)
    assert (means.ensemble, means.logits, means.features) == (None, None, None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_bad_step_is_named_however_late_it_is_looked_for(bad: float) -> None:
    losses = EpochLosses(Accelerator())
    losses.begin_epoch(4)
    for step, value in ((11, 1.0), (12, bad), (13, bad), (14, 1.0)):
        terms = LossTerms((LossTerm(name="student", value=torch.tensor(value)),))
        losses.begin_step(step, 2)
        for _ in range(2):
            losses.add(terms.total, terms, 1)
        losses.watch()
    with pytest.raises(TrainingError, match=r"step 12 \(epoch 4\)"):
        losses.check(13)
    with pytest.raises(TrainingError, match="step 12"):
        losses.means()


def test_nothing_of_an_epoch_is_left_in_the_next_and_a_checkpoints_sums_are_gone_on_from() -> None:
    losses = EpochLosses(Accelerator())
    for epoch, (bad, good) in enumerate(((float("nan"), 1.0), (2.0, 4.0)), start=1):
        losses.begin_epoch(epoch)
        for step, value in ((2 * epoch - 1, bad), (2 * epoch, good)):
            terms = LossTerms((LossTerm(name="student", value=torch.tensor(value)),))
            losses.begin_step(step, 2)
            losses.add(terms.total, terms, 2)
    assert losses.means().student == 3.0
    saved = losses.by_process()
    losses.begin_epoch(3)
    assert losses.by_process() == ()
    with pytest.raises(TrainingError, match="epoch 3 had no step"):
        losses.means()
    losses.begin_epoch(2, saved)
    losses.begin_step(5, 4)
    terms = LossTerms((LossTerm(name="student", value=torch.tensor(9.0)),))
    losses.add(terms.total, terms, 4)
    assert losses.means().student == 6.0
