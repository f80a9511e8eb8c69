"""Whether quantisation-aware fine-tuning gains what INT8 loses: `train.quantise_epochs`, which there is not.

A small student is trained alone, and then fine-tuned in two ways from the same weights, on the same batches and with
the same rates: as it is, and with its weights and activations rounded as INT8 rounds them (Jacob et al. 2018,
<https://arxiv.org/abs/1712.05877>), the gradient passed straight through. The rounding is taken off afterwards and the
weights stay on their grid: one scale for each output channel, which folding a batch norm does not change. So the
student is the same network with other numbers, and split, proof, export and audit are those of any student. All
three are exported by this project, with every layer in INT8, and compared on the same test images.

It needs CIFAR-100 as image folders, named by ECD_DEPLOY_CIFAR100.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from benchmarks.figures import Figure, Report, cifar100
from ecd_deploy.data import DataSplits, TrainBatches, load_data
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.distill import PlainModel
from ecd_deploy.measure.predictors.prediction import predict
from ecd_deploy.pipelines.run import run_train
from ecd_deploy.pipelines.steps.export import export_all
from ecd_deploy.pipelines.steps.train import example_images, student_factory, training_model
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from ecd_deploy.split import split_student
from ecd_deploy.training import load_weights

SEEDS = (0, 1, 2)
TRAINED, USUAL, AWARE = "trained", "fine-tuned", "fine-tuned as INT8"
SETTINGS = (
    *("data.source=imagefolder", "data.image_size=16", "data.crop_padding=2", "data.train_limit=5000"),
    *("student.name=resnet8", "method.name=plain", "train.epochs=10", "train.schedule=cosine", "train.select=last"),
    *("train.warmup_epochs=1.0", "train.threads=1", "train.trackers=[]"),
    *('export.formats=["onnx","onnx-int8"]', "export.int8.max_drop=1.0"),
)
FINE_TUNING_EPOCHS = 3
FINE_TUNING_RATE = 0.01
_LARGEST_WEIGHT = 127
_LARGEST_ACTIVATION = 255
_MOMENTUM = 0.1
_BATCH = 256


@dataclass(frozen=True)
class Found:
    """Of one student with one seed, top-1 on the test images of its float32 file and of its INT8 file."""

    student: str
    seed: int
    float_top1: float
    int8_top1: float


class RoundedWeight(nn.Module):
    """A weight (O, ...) on the grid of 8 signed bits, one scale for each output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """Round; the gradient goes straight through."""
        scale = weight.detach().flatten(1).abs().amax(1).clamp_min(1e-12) / _LARGEST_WEIGHT
        zero = torch.zeros(len(weight), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)


class RoundedInput:
    """The input of a layer on the grid of 8 unsigned bits, over a moving average of its range."""

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Round, as a forward pre-hook."""
        (features,) = given
        found = (min(0.0, float(features.detach().min())), max(0.0, float(features.detach().max())))
        if self._range is None:
            self._range = found
        elif module.training:
            kept, now = np.array(self._range), np.array(found)
            least, largest = (1 - _MOMENTUM) * kept + _MOMENTUM * now
            self._range = float(least), float(largest)
        scale = max(self._range[1] - self._range[0], 1e-12) / _LARGEST_ACTIVATION
        zero = round(-self._range[0] / scale)
        return (torch.fake_quantize_per_tensor_affine(features, scale, zero, 0, _LARGEST_ACTIVATION),)


@contextmanager
def rounded(student: nn.Module) -> Iterator[None]:
    """Let a student compute as in INT8; afterwards its weights are those of the grid, and nothing else is left."""
    layers = [module for module in student.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(RoundedInput()) for layer in layers]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", RoundedWeight())
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def fine_tune(student: nn.Module, data: DataSplits, recipe: Recipe) -> None:
    """Train a student a little longer, with a rate that falls to zero."""
    batches = TrainBatches(
        data.train,
        data.normalisation,
        StepPlan(images=len(data.train), batch_size=recipe.train.batch_size, seed=recipe.seed),
        crop_padding=recipe.data.crop_padding,
        horizontal_flip=recipe.data.horizontal_flip,
    )
    optimizer = torch.optim.SGD(
        student.parameters(), lr=FINE_TUNING_RATE, momentum=0.9, weight_decay=recipe.train.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FINE_TUNING_EPOCHS * len(batches))
    student.train()
    for epoch in range(1, FINE_TUNING_EPOCHS + 1):
        for batch in batches.epoch(recipe.train.epochs + epoch):
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(student(batch.images), batch.labels))
            optimizer.step()
            schedule.step()


def measured(name: str, student: nn.Module, data: DataSplits, recipe: Recipe) -> Found:
    """Split, prove, export and audit a student, and count what its two files get right."""
    split = split_student(PlainModel(copy.deepcopy(student).eval()), example_images(data))
    right: list[NDArray[np.bool_]] = []
    for written in export_all(recipe, split, data):
        predictor = written.exporter.open(written.data, student_factory(recipe, data))
        logits = predict(predictor, data.normalisation.batches(data.test, _BATCH)).logits
        right.append(logits.argmax(axis=1) == data.test.labels)
    whole, int8 = (float(each.mean()) for each in right)
    return Found(name, recipe.seed, whole, int8)


def of_seed(seed: int, folder: Path) -> Iterator[Found]:
    """Train one student, and measure it as it is and after both ways of fine-tuning."""
    recipe = load_recipe("cifar100-resnet20", (*SETTINGS, f"data.path={cifar100()}", f"seed={seed}"))
    run_train(recipe, folder / str(seed), resume=False, rehearsal=False)
    data = load_data(recipe.data, seed=seed)
    model = training_model(recipe, data)
    load_weights(folder / str(seed), "last", model)
    yield measured(TRAINED, model.student, data, recipe)
    usual, aware = copy.deepcopy(model.student), copy.deepcopy(model.student)
    fine_tune(usual, data, recipe)
    yield measured(USUAL, usual, data, recipe)
    with rounded(aware):
        fine_tune(aware, data, recipe)
    yield measured(AWARE, aware, data, recipe)


def measure() -> Report:
    """Train, fine-tune and compare, for every seed."""
    with tempfile.TemporaryDirectory() as folder:
        found = [entry for seed in SEEDS for entry in of_seed(seed, Path(folder))]
    by_name = {name: [entry for entry in found if entry.student == name] for name in (TRAINED, USUAL, AWARE)}
    lost = {name: [entry.int8_top1 - entry.float_top1 for entry in rows] for name, rows in by_name.items()}
    gained = [aware.int8_top1 - usual.int8_top1 for aware, usual in zip(by_name[AWARE], by_name[USUAL], strict=True)]
    return Report(
        benchmark="quantisation_aware",
        figures=[
            *(_points(f"{name}: INT8 less float32", values) for name, values in lost.items()),
            _points(f"INT8 top-1: {AWARE} less {USUAL}", gained),
        ],
        setting={"settings": SETTINGS, "seeds": SEEDS, "epochs": FINE_TUNING_EPOCHS, "rate": FINE_TUNING_RATE},
        raw={"rows": [asdict(entry) for entry in found]},
    )


def _points(name: str, values: list[float]) -> Figure:
    """The mean over the seeds, between the least and the largest."""
    mean, least, largest = (100 * number for number in (statistics.fmean(values), min(values), max(values)))
    return Figure(name=name, value=mean, lower=least, upper=largest, better="higher", unit="points")
