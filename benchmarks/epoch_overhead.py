"""What share of an epoch is not spent in training steps: data, log, checkpoint and evaluation of a real training.

ECD of ResNet-20 at the paper's batch size on CIFAR-100 as PNG files, in the folder that ECD_DEPLOY_CIFAR100 names.
A quarter of the images: each epoch's fixed costs, its checkpoint and its log, weigh four times what they do in a
whole one.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Figure, Report, cifar100
from ecd_deploy.data import load_data
from ecd_deploy.models import build_student
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.recipe.student import StudentConfig
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training import trainer
from ecd_deploy.training.loop import train
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.metrics import MetricsLog
from ecd_deploy.training.steps.step import StepWork
from ecd_deploy.training.trainer import Trainer

STUDENT, BATCH, EPOCHS, TRAIN_LIMIT = "resnet20", 128, 2, 12_500
_TIMED: tuple[tuple[Any, str, str], ...] = (
    (Trainer, "run_epoch", "epoch"),
    (StepWork, "__call__", "step"),
    (trainer, "evaluate", "evaluation"),
    (Trainer, "_save", "checkpoint"),
    (MetricsLog, "append", "log"),
)


def measure() -> Report:
    """Train, with a clock around each part."""
    setting = {"student": STUDENT, "batch": BATCH, "epochs": EPOCHS, "train_limit": TRAIN_LIMIT, "kernels": 16}
    root = cifar100()
    seconds: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as clocks:
        recipe = Recipe(
            name="epoch-overhead",
            data=DataConfig(
                source="imagefolder",
                path=str(root),
                cache_dir=f"{folder}/cache",
                train_limit=TRAIN_LIMIT,
                crop_padding=4,
                horizontal_flip=True,
            ),
            student=StudentConfig(name=STUDENT),
            train=TrainConfig(epochs=EPOCHS, batch_size=BATCH),
        )
        data = load_data(recipe.data, seed=recipe.seed)
        torch.manual_seed(recipe.seed)
        student = build_student(STUDENT, num_classes=len(data.classes))
        model = build_training_model(recipe.method, student, example=torch.zeros(1, *data.input_shape))
        for owner, name, part in _TIMED:
            clocks.enter_context(_clock(owner, name, part, seconds))
        train(model, data, recipe, Path(folder) / "run", resume=False)
    outside = seconds["epoch"] - seconds["step"]
    named = {part: seconds[part] for part in ("evaluation", "checkpoint", "log")}
    parts = {"data and the rest": outside - sum(named.values()), **named}
    return Report(
        benchmark="epoch_overhead",
        figures=(
            _share(
                "time outside the step, of an epoch, without evaluation", outside - named["evaluation"], seconds, 5, 2
            ),
            *(_share(f"time outside the step, of an epoch: {part}", spent, seconds) for part, spent in parts.items()),
        ),
        setting=setting,
        raw={"seconds": dict(seconds)},
    )


def _share(
    name: str, spent: float, seconds: dict[str, float], must: float | None = None, aim: float | None = None
) -> Figure:
    return Figure(name=name, value=100 * spent / seconds["epoch"], better="lower", must=must, aim=aim, unit="%")


@contextmanager
def _clock(owner: Any, name: str, part: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the seconds of each call of `owner.name` to `seconds[part]` while the context lasts."""
    original: Callable[..., Any] = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - started

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, original)
