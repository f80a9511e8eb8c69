"""What only a GPU can show: that a step is recorded there, and what it computes then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.data import DataSplits, ImageSet, ImageTensors, Normalisation, TrainBatches, normalise
from ecd_deploy.data.augmentation.augmenter import Augmenter
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.distill import PlainModel, TrainingOutputs
from ecd_deploy.recipe.augment import AugmentConfig
from ecd_deploy.training.evaluation import evaluate, moved_if_they_fit
from ecd_deploy.training.steps.cuda_graph import CudaRecorder, GraphedWork
from ecd_deploy.training.steps.step import begin_step
from tests.small import present
from tests.training.helpers import MakeModel, MakeRecipe, at_forward, interrupt, metrics, run
from tests.training.repeated_steps import ADAMW, do_steps, make_work
from tests.variants import VARIANTS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture(autouse=True)
def the_same_sums() -> Iterator[None]:
    """Convolutions that add in the same order each time, in full precision, which is torch's default for products."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def assert_close(found: nn.Module, expected: nn.Module) -> None:
    torch.testing.assert_close(dict(found.state_dict()), dict(expected.state_dict()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_steps_of_two_sizes_are_those_of_the_eager_step(
    variant: str, caplog: pytest.LogCaptureFixture
) -> None:
    eager, recorded = make_work(variant), make_work(variant)
    do_steps(eager, eager)
    do_steps(recorded, GraphedWork(recorded, CudaRecorder(recorded.accelerator.device)))
    assert not caplog.messages
    for found, expected in zip(recorded.changed(), eager.changed(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_steps_of_adamw_with_clipping_and_average_are_recorded(caplog: pytest.LogCaptureFixture) -> None:
    eager, recorded = make_work("ecd", ADAMW), make_work("ecd", ADAMW)
    do_steps(eager, eager)
    do_steps(recorded, GraphedWork(recorded, CudaRecorder(recorded.accelerator.device)))
    assert not caplog.messages
    for found, expected in zip(recorded.changed(), eager.changed(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_training_with_dropout_is_recorded_and_gone_on_from(
    make_model: MakeModel,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = make_recipe("train.warmup_epochs=1.5", "train.checkpoint_steps=1")
    recorded, eager, stopped, resumed = (make_model() for _ in range(4))
    launches: list[int] = []
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        launches.append(1)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    run(recorded, data, recipe, tmp_path / "recorded")
    assert (len(launches), caplog.messages) == (15, [])
    run(eager, data, make_recipe("train.warmup_epochs=1.5", "train.cuda_graph=never"), tmp_path / "eager")
    assert len(launches) == 15
    assert_close(recorded, eager)
    for found, line in zip(metrics(tmp_path / "recorded"), metrics(tmp_path / "eager"), strict=True):
        assert found["loss"] == pytest.approx(line["loss"], rel=1e-4)

    at_forward(stopped, 8, interrupt)  # by a hook, so this one is eager
    with pytest.raises(KeyboardInterrupt):
        run(stopped, data, recipe, tmp_path / "stopped")
    assert "has hooks" in caplog.messages[-1]
    run(resumed, data, recipe, tmp_path / "stopped", resume=True)
    assert_close(resumed, recorded)


class Waiting(PlainModel):
    """A student with dropout whose forward waits for the device, in a way that torch's watch knows or does not."""

    def __init__(self, is_known: bool) -> None:
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 10))
        super().__init__(nn.Sequential(*layers))
        self.is_known = is_known

    def forward(self, images: Tensor) -> TrainingOutputs:
        logits = super().forward(images).student
        if self.is_known:
            return TrainingOutputs(logits * (1.0 if float(logits.detach().sum()) > 0 else 0.5))
        torch.cuda.synchronize()
        return TrainingOutputs(logits)


@pytest.mark.parametrize(
    ("is_known", "reason"), [(True, "the host waits for the device"), (False, "recording it failed")]
)
def test_a_step_that_waits_is_done_as_it_is(
    is_known: bool,
    reason: str,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried, eager = Waiting(is_known), Waiting(is_known)
    run(tried, data, make_recipe(), tmp_path / "tried")
    (line,) = caplog.messages
    assert reason in line
    run(eager, data, make_recipe("train.cuda_graph=never"), tmp_path / "eager")
    assert_close(tried, eager)


def test_fp16_is_trained_from_the_largest_scale(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(make_model(), data, make_recipe("train.mixed_precision=fp16"), tmp_path)
    assert present(result.last.validation_top1) > 0.2
    (line,) = caplog.messages
    assert "scaler" in line


def test_bf16_is_recorded(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(make_model(), data, make_recipe("train.mixed_precision=bf16"), tmp_path)
    assert present(result.last.validation_top1) > 0.2
    assert not caplog.messages


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(),
        AugmentConfig(policy="trivialaugment", hue=0.1, saturation=0.1, random_erasing=0.5, mixup=0.4, cutmix=1.0),
    ],
    ids=["cropped", "augmented"],
)
def test_the_host_waits_in_no_step_of_an_epoch(make_recipe: MakeRecipe, augment: AugmentConfig) -> None:
    """Neither for the images nor for the sums of the losses, with or without a graph."""
    work, recipe = make_work("ecd"), make_recipe()
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (42, 3, 12, 12), dtype=torch.uint8, generator=draw)
    batches = TrainBatches(
        ImageSet(pixels.numpy(), np.arange(42) % 4),
        Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        StepPlan(images=42, batch_size=8, seed=0),
        crop_padding=1,
        horizontal_flip=True,
        augmenter=None if augment == AugmentConfig() else Augmenter(augment, (), classes=4, seed=0),
        device=work.accelerator.device,
    )
    for do in (work, GraphedWork(work, CudaRecorder(work.accelerator.device))):
        for epoch in (1, 2):  # what is made once is made in the first
            torch.cuda.set_sync_debug_mode("default" if epoch == 1 else "error")
            try:
                for step, batch in enumerate(batches.epoch(epoch)):
                    begin_step(work.optimizer, batch, recipe, work.losses, step=step, steps_per_epoch=6)
                    do(batch)
                    work.losses.check(step + 1)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert 0 < work.losses.means().total < 100


def test_evaluation_on_the_device_counts_as_on_the_host(make_model: MakeModel, data: DataSplits) -> None:
    work = make_work("plain")
    device, model = work.accelerator.device, make_model().to(work.accelerator.device)
    on_device = moved_if_they_fit(data.test, device)
    assert on_device.images.device.type == "cuda"
    found = evaluate(model, on_device, data.normalisation, work.accelerator, 64)
    model.cpu().eval()
    with torch.no_grad():
        outputs = model(normalise(ImageTensors.of(data.test).images, data.normalisation))
    for name, logits in outputs.heads().items():
        expected = (logits.argmax(1) == torch.from_numpy(data.test.labels)).double().mean().item()
        assert getattr(found.top1, name) == pytest.approx(expected, abs=2 / len(data.test))
