# mypy: untyped-calls-exclude=accelerate

"""Where a training's curves go besides `metrics.jsonl`, through Accelerate: TensorBoard, MLflow, Weights & Biases.

A tracker that fails is left out from then on, and that is said once: a server that is away ends no training.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from accelerate.state import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from ecd_deploy.errors import ArtefactError, RecipeError, first_line, reraise_machine_fault
from ecd_deploy.files import write_atomic
from ecd_deploy.quiet import library_quiet
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.recipe.train import TrackerName
from ecd_deploy.records import Record
from ecd_deploy.training.names import TENSORBOARD_FOLDER, TRACKERS_NAME

_LONGEST_KEY = 250  # characters, for MLflow
_PATIENCE = 30  # seconds, of one who waits for Weights & Biases
# Read by MLflow at each request, where the user has not set them: its own wait minutes for a server that is away.
_MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_logger = logging.getLogger(__name__)


class TrackedRuns(Record):
    """`trackers.json`: the runs on servers that a resumed training and the verdict go on with.

    Attributes:
        runs: the id of each, by tracker.
    """

    schema_version: Literal[1] = 1
    runs: Mapping[TrackerName, str] = {}


class Trackers:
    """Trackers of one training, by name."""

    def __init__(self) -> None:
        self._trackers: dict[TrackerName, GeneralTracker] = {}

    def follow(self, name: TrackerName, make: Callable[[], GeneralTracker], parameters: Mapping[str, object]) -> None:
        """Make a tracker and start it; a new run is given its parameters."""

        def start() -> None:
            tracker = make()
            tracker.start()
            self._trackers[name] = tracker
            if parameters:
                tracker.store_init_configuration(dict(parameters))

        self._attempt(name, start)

    def runs(self) -> TrackedRuns:
        """The runs on servers."""
        runs: dict[TrackerName, str] = {}
        for name, tracker in self._trackers.items():
            if isinstance(tracker, MLflowTracker):
                runs[name] = tracker.tracker.info.run_id
            elif isinstance(tracker, WandBTracker):
                runs[name] = tracker.tracker.id
        return TrackedRuns(runs=runs)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve.

        Raises:
            ArtefactError: TensorBoard's events cannot be written.
        """
        for name, tracker in tuple(self._trackers.items()):
            self._attempt(name, partial(tracker.log, dict(values), step=step))

    def conclude(self, verdict: str, values: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Hand over the verdict, what was measured, and files by their paths in the run directory."""
        for name, tracker in tuple(self._trackers.items()):
            if isinstance(tracker, MLflowTracker):
                self._attempt(name, partial(_conclude_mlflow, tracker, verdict, values, files))
            elif isinstance(tracker, WandBTracker):
                self._attempt(name, partial(_conclude_wandb, tracker, verdict, values, files))

    def close(self, *, failed: bool = False) -> None:
        """End all of them, and say whether the training failed or was stopped."""
        for name, tracker in tuple(self._trackers.items()):
            self._attempt(name, partial(_end, tracker, failed=failed))
        self._trackers.clear()

    def _attempt(self, name: TrackerName, action: Callable[[], None]) -> None:
        try:
            with library_quiet():
                action()
        except Exception as error:
            if name == "tensorboard" and isinstance(error, OSError):
                where = f" to {error.filename}" if error.filename else ""
                raise ArtefactError(f"cannot write TensorBoard's events{where}: {error.strerror}") from error
            reraise_machine_fault(error)
            self._trackers.pop(name, None)
            _logger.warning("train.trackers: '%s' fails, and the run goes on without it: %s", name, first_line(error))


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Look for the packages of the trackers; none is imported.

    Raises:
        RecipeError: one is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(f"train.trackers: {name} is not installed: pip install 'ecd-deploy[tracking]'")


def start_trackers(recipe: Recipe, directory: Path, first_step: int) -> Trackers:
    """Start the recipe's trackers, or go on with their runs, and note these in `trackers.json`.

    Args:
        recipe: of the run; its name is that of the experiment.
        directory: of the run; its name is the run's.
        first_step: optimiser steps that are done, and one more: what an interrupted training logged beyond is hidden.

    Raises:
        RecipeError: a tracker is not installed.
        ArtefactError: the directory cannot be written.
    """
    require_trackers(recipe.train.trackers)
    trackers, known = Trackers(), _tracked_runs(directory).runs
    for name in recipe.train.trackers:
        if name == "tensorboard":
            make = partial(TensorBoardTracker, TENSORBOARD_FOLDER, str(directory), purge_step=first_step)
            trackers.follow(name, make, {})
        else:
            trackers.follow(name, _maker(name, recipe, directory, known.get(name)), _parameters(recipe, name in known))
    if (runs := trackers.runs()).runs:
        write_atomic(directory / TRACKERS_NAME, TrackedRuns(runs={**known, **runs.runs}).to_json())
    return trackers


def conclude(
    recipe: Recipe, directory: Path, verdict: str, values: Mapping[str, float], files: Mapping[str, Path]
) -> None:
    """Hand over to the runs of `trackers.json` how a run ended; see `Trackers.conclude`."""
    PartialState()  # which Accelerate's trackers ask whether this is the first process
    trackers = Trackers()
    for name, run_id in _tracked_runs(directory).runs.items():
        trackers.follow(name, _maker(name, recipe, directory, run_id), {})
    trackers.conclude(verdict, {_key(name): value for name, value in values.items()}, files)
    trackers.close()


def _tracked_runs(directory: Path) -> TrackedRuns:
    path = directory / TRACKERS_NAME
    return TrackedRuns.from_json(path.read_bytes(), f"{path} names no runs") if path.is_file() else TrackedRuns()


def _maker(name: TrackerName, recipe: Recipe, directory: Path, run_id: str | None) -> Callable[[], GeneralTracker]:
    make = _mlflow if name == "mlflow" else _wandb
    return partial(make, recipe.name, directory.resolve().name, run_id)


def _mlflow(experiment: str, name: str, run_id: str | None) -> MLflowTracker:
    for key, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(key, value)
    # nested: within a run of the caller's own, or beside one that its server has left open
    return MLflowTracker(experiment, run_id=run_id, run_name=name, nested_run=True)


def _wandb(project: str, name: str, run_id: str | None) -> WandBTracker:
    from wandb import Settings

    settings = Settings(console="off", silent=True, init_timeout=_PATIENCE, finish_timeout=_PATIENCE)
    return WandBTracker(project, name=name, id=run_id, resume="allow", settings=settings)


def _end(tracker: GeneralTracker, *, failed: bool) -> None:
    if failed and isinstance(tracker, MLflowTracker):
        import mlflow

        mlflow.end_run("FAILED")
    elif failed and isinstance(tracker, WandBTracker):
        tracker.tracker.finish(exit_code=1)
    else:
        tracker.finish()


def _conclude_mlflow(
    tracker: MLflowTracker, verdict: str, values: Mapping[str, float], files: Mapping[str, Path]
) -> None:
    import mlflow

    mlflow.set_tag("verdict", verdict)
    tracker.log(dict(values))
    for name, path in files.items():
        tracker.log_artifact(str(path), name.rpartition("/")[0] or None)


def _conclude_wandb(
    tracker: WandBTracker, verdict: str, values: Mapping[str, float], files: Mapping[str, Path]
) -> None:
    import wandb

    tracker.tracker.summary.update({"verdict": verdict, **values})
    artifact = wandb.Artifact(tracker.run_name, type="run")
    for name, path in files.items():
        artifact.add_file(str(path), name)
    tracker.tracker.log_artifact(artifact)


def _parameters(recipe: Recipe, is_known: bool) -> dict[str, object]:
    """The recipe's choices; none for a run that has them, of which MLflow lets none change."""
    return {} if is_known else {_key(key): value for key, value in recipe.choices().items() if value is not None}


def _key(name: str) -> str:
    """A name that every tracker takes: those of classes may hold anything."""
    return re.sub(r"[^\w. -]", "_", name)[:_LONGEST_KEY]
