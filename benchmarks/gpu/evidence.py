# mypy: untyped-calls-exclude=accelerate

"""Does ECD help? The student alone against ECD on CIFAR-100, pair by pair, trained by the product's own `train`."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.gpu.packed import read_data
from benchmarks.gpu.parts import Findings, PartRun
from benchmarks.gpu.schedule import ArmCost, Schedule, choose_schedule
from ecd_deploy.data import DataSplits, ImageTensors, load_data
from ecd_deploy.measure.statistics.paired import paired_interval
from ecd_deploy.pipelines.steps.train import training_model
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from ecd_deploy.records import Record
from ecd_deploy.training import EpochRecord, train
from ecd_deploy.training.acceleration import build_accelerator
from ecd_deploy.training.evaluation import evaluate
from ecd_deploy.training.names import METRICS_NAME

BASELINE: Final = "student"
ARMS: Mapping[str, tuple[str, ...]] = {
    BASELINE: ("method.name=plain",),
    "ecd": (),
    "ecd_star": ("method.logits=ensemble",),
}
"""What each arm sets; the third one is trained where the time allows it."""

_OF_ALL = ("data.validation_fraction=0.0", "train.select=last", "train.trackers=[]")
_TRIAL_SEED = 1_000_000  # of no pair
_TEST_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an evidence part trains.

    Attributes:
        recipe: that all arms start from.
        overrides: `--set` values of all arms.
        few: whether to train on the few images, or on all.
        seeds: pairs.
        trial_epochs: of the training that times are taken from.
        least, most: epochs.
        least_with_third: epochs with which all pairs must fit for the third arm to be trained.
    """

    recipe: str
    overrides: tuple[str, ...]
    few: bool
    seeds: int
    trial_epochs: int
    least: int
    most: int
    least_with_third: int


_FEW = Setting(
    recipe="cifar100-resnet20",
    overrides=_OF_ALL,
    few=True,
    seeds=6,
    trial_epochs=4,
    least=40,
    most=200,
    least_with_third=40,
)
_FULL = replace(_FEW, few=False, seeds=3, trial_epochs=3, least=4, least_with_third=200)
_REHEARSED = replace(
    _FEW,
    recipe="digits",
    overrides=(*_OF_ALL, "train.schedule=multistep", "train.warmup_epochs=0.0"),
    seeds=2,
    trial_epochs=2,
    least=4,
    most=4,
    least_with_third=4,
)
_REHEARSED_IMAGES = ("data.train_limit=128", "data.test_limit=64")


class ArmResult(Record):
    """A finished training.

    Attributes:
        arm: its name.
        test_top1: of the student after the last epoch, percent.
        teacher_top1, ensemble_top1: the same of the other heads, where there are any.
        student_loss: its mean cross-entropy over the training images, by epoch.
        epoch_seconds: by epoch.
        seconds: of everything.
    """

    arm: str
    test_top1: float
    teacher_top1: float | None
    ensemble_top1: float | None
    student_loss: tuple[float, ...]
    epoch_seconds: tuple[float, ...]
    seconds: float


class SeedResult(Record):
    """The arms with one seed: the same first student, images in the same order."""

    seed: int
    arms: tuple[ArmResult, ...]

    def top1(self, arm: str) -> float:
        """Test top-1 of an arm, percent."""
        return next(result.test_top1 for result in self.arms if result.arm == arm)


class PairedDifference(Record):
    """An arm's test top-1 minus the baseline's, in points: by seed, mean, and 95 % t interval where there is one."""

    arm: str
    by_seed: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None


class Evidence(Findings):
    """The study so far.

    Attributes:
        images: trained on, and tested on.
        data_digest: SHA-256 of the images.
        recipe: of the arm "ecd" with the first seed.
        costs: measured before the schedule was fixed.
        schedule: fixed before the first result.
        seeds: finished, all arms of each.
        differences: of each arm but the baseline.
    """

    images: tuple[int, int]
    data_digest: str
    costs: tuple[ArmCost, ...] = ()
    schedule: Schedule | None = None
    recipe: Recipe | None = None
    seeds: tuple[SeedResult, ...] = ()
    differences: tuple[PairedDifference, ...] = ()

    def faults(self) -> tuple[str, ...]:
        """Pairs for which there was no time."""
        if self.schedule is None:
            return ("no schedule was fixed",)
        if len(self.seeds) < self.schedule.seeds:
            done = f"{len(self.seeds)} of {self.schedule.seeds} pairs of {self.schedule.epochs} epochs"
            return (f"{done} were finished in the time",)
        return ()

    def summary(self) -> tuple[str, ...]:
        """Accuracy of the arms and the paired differences."""
        if self.schedule is None or not self.seeds:
            return ()
        head = f"{self.images[0]} images, {self.schedule.epochs} epochs, {len(self.seeds)} seeds"
        lines = [
            f"{head}: {arm} {statistics.fmean(seed.top1(arm) for seed in self.seeds):.2f} %"
            for arm in self.schedule.arms
        ]
        for one in self.differences:
            interval = (
                "" if one.interval is None else f", 95 % interval {one.interval[0]:+.2f} to {one.interval[1]:+.2f}"
            )
            seeds = " ".join(f"{value:+.2f}" for value in one.by_seed)
            lines.append(f"{one.arm} minus {BASELINE}: {one.mean:+.2f} points{interval}; by seed {seeds}")
        return tuple(lines)


def gather_few(run: PartRun) -> Evidence:
    """ResNet-20 on 90 images a class of CIFAR-100, six pairs."""
    return _gather(run, _REHEARSED if run.tiny else _FEW)


def gather_full(run: PartRun) -> Evidence:
    """ResNet-20 on all of CIFAR-100, three pairs of the paper's schedule or the longest that fits."""
    return _gather(run, _REHEARSED if run.tiny else _FULL)


def _gather(run: PartRun, setting: Setting) -> Evidence:
    data = _read(run, setting)
    evidence = Evidence(images=(len(data.train), len(data.test)), data_digest=data.digest)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs = tuple(_trial(arm, setting, data, run, folder) for arm in ARMS)
        schedule = choose_schedule(
            costs,
            seeds=setting.seeds,
            seconds=run.left(),
            least=setting.least,
            most=setting.most,
            least_with_third=setting.least_with_third,
        )
        recipe = _recipe(setting, run, "ecd", 0, schedule.epochs, schedule.milestones)
        evidence = evidence.model_copy(update={"costs": costs, "schedule": schedule, "recipe": recipe})
        run.keep(evidence)
        expected = sum(cost.seconds(schedule.epochs) for cost in costs if cost.arm in schedule.arms)
        for seed in range(setting.seeds):
            if run.left() < expected and not run.tiny:
                break
            arms = tuple(
                _train(arm, _recipe(setting, run, arm, seed, schedule.epochs, schedule.milestones), data, folder)
                for arm in schedule.arms
            )
            seeds = (*evidence.seeds, SeedResult(seed=seed, arms=arms))
            evidence = evidence.model_copy(
                update={"seeds": seeds, "differences": paired_differences(seeds, schedule.arms)}
            )
            run.keep(evidence)
    return evidence


def paired_differences(seeds: Sequence[SeedResult], arms: Sequence[str]) -> tuple[PairedDifference, ...]:
    """Each arm but the first minus the first, seed by seed.

    Args:
        seeds: at least one.
        arms: names, the baseline's first.
    """
    baseline, *others = arms
    found = []
    for arm in others:
        by_seed = tuple(round(seed.top1(arm) - seed.top1(baseline), 4) for seed in seeds)
        found.append(
            PairedDifference(
                arm=arm, by_seed=by_seed, mean=statistics.fmean(by_seed), interval=paired_interval(by_seed)
            )
        )
    return tuple(found)


def _read(run: PartRun, setting: Setting) -> DataSplits:
    recipe = load_recipe(setting.recipe, setting.overrides + (_REHEARSED_IMAGES if run.tiny else ()))
    if run.tiny:
        return load_data(recipe.data, seed=0)
    return read_data(run.data, few=setting.few, config=recipe.data)


def _recipe(setting: Setting, run: PartRun, arm: str, seed: int, epochs: int, milestones: tuple[int, int]) -> Recipe:
    own = (
        f"seed={seed}",
        f"train.epochs={epochs}",
        f"train.milestones={list(milestones)}",
        f"train.mixed_precision={run.precision}",
    )
    return load_recipe(setting.recipe, (*setting.overrides, *ARMS[arm], *own))


def _trial(arm: str, setting: Setting, data: DataSplits, run: PartRun, folder: Path) -> ArmCost:
    """Train a few epochs of an arm for their time."""
    epochs = setting.trial_epochs
    trained = _train(arm, _recipe(setting, run, arm, _TRIAL_SEED, epochs, (epochs, epochs + 1)), data, folder)
    # the first epoch holds what is done once as well: libraries choose, the step is recorded
    epoch = statistics.median(trained.epoch_seconds[1:])
    return ArmCost(arm=arm, fixed_seconds=max(0.0, trained.seconds - epochs * epoch), epoch_seconds=epoch)


def _train(arm: str, recipe: Recipe, data: DataSplits, folder: Path) -> ArmResult:
    """Train an arm and test it after the last epoch."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        model = training_model(recipe, data)
        train(model, data, recipe, Path(name), resume=False)
        lines = (Path(name) / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    records = [EpochRecord.model_validate_json(line) for line in lines]
    test = ImageTensors.of(data.test)
    heads = evaluate(model, test, data.normalisation, build_accelerator(recipe.train), _TEST_BATCH).top1
    return ArmResult(
        arm=arm,
        test_top1=_percent(heads.student),
        teacher_top1=None if heads.teacher is None else _percent(heads.teacher),
        ensemble_top1=None if heads.ensemble is None else _percent(heads.ensemble),
        student_loss=tuple(record.student_loss for record in records),
        epoch_seconds=tuple(round(record.seconds, 4) for record in records),
        seconds=time.monotonic() - started,
    )


def _percent(share: float) -> float:
    return round(100 * share, 4)
