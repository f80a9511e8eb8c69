"""Runs of a study as jobs of a Slurm cluster, through submitit; its local executor stands in for one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from ecd_deploy.compat.submitit import shared_settings, slurm_settings
from ecd_deploy.errors import EcdDeployError, TrainingError, UsageError, did_you_mean
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.study.run import ArmRun, run_arm
from ecd_deploy.pipelines.study.study import Study, recipe_of

if TYPE_CHECKING:
    from submitit import Job
    from submitit.helpers import DelayedSubmission

Settings = Mapping[str, Any]
"""What a job asks for, by the names of submitit's `update_parameters`; those of Slurm alone without their prefix."""

_DEFAULTS: Settings = {"timeout_min": 24 * 60}
# A run is one process, and submitit must know its minutes as a number: `timeout_min`.
_NOT_TO_SET = {"nodes", "tasks_per_node", "ntasks_per_node", "array_parallelism", "num_gpus", "time"}
_FOLDER = "submitit"
_PREFIX = "slurm_"


def parse_settings(entries: Sequence[str]) -> Settings:
    """Read `KEY=VALUE` each; a value that is JSON, such as a number or a list, is taken as that, any other as text.

    Raises:
        UsageError: there is no `=`.
    """
    settings: dict[str, Any] = {}
    for entry in entries:
        key, equals, raw = entry.partition("=")
        if not equals or not key:
            raise UsageError(f"--slurm-set '{entry}' is not KEY=VALUE")
        try:
            settings[key] = json.loads(raw)
        except ValueError:
            settings[key] = raw
    return settings


class Jobs:
    """The jobs of a study; their numbers are kept in its folder, so that another process finds those that run.

    Raises:
        UsageError: submitit is not installed, there is no Slurm, or it knows no such setting.
    """

    def __init__(self, cluster: Literal["slurm", "local"], out: Path, settings: Settings, console: Console) -> None:
        try:
            from submitit import AutoExecutor
        except ImportError as error:
            raise UsageError("--slurm needs submitit: pip install 'ecd-deploy[slurm]'") from error
        self._settings = {**_DEFAULTS, **_named(settings)}
        self._folder = out / _FOLDER
        try:
            self._executor = AutoExecutor(folder=self._folder, cluster=cluster)
        except RuntimeError as error:
            raise UsageError("--slurm needs a machine of the cluster: there is no srun on this one's PATH") from error
        try:
            self._executor.update_parameters(**self._settings)
        except (AssertionError, TypeError, ValueError) as error:
            given = ", ".join(f"{key}={value!r}" for key, value in settings.items())
            raise UsageError(
                f"--slurm-set {given}: submitit cannot use it ({error}); a list is written as JSON, for instance "
                'setup=["module load cuda"]'
            ) from error
        self._cluster = cluster
        self._console = console
        self._jobs: list[Job[ArmRun | str]] = []

    def start(self, study: Study, arm: str, seed: int, out: Path) -> JobHandle | Future[ArmRun]:
        """Submit a run, or find its job if that still waits or runs."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        record = self._folder / f"{arm}.seed-{seed}.job"
        job = self._found(record)
        if job is None:
            threads = recipe_of(study, study.arm(arm), seed, out).train.threads
            # Set for each: what is left out keeps the value of the run before.
            self._executor.update_parameters(
                **{"name": f"{study.name}.{arm}.{seed}", "cpus_per_task": threads or 1, **self._settings}
            )
            try:
                job = self._executor.submit(_Run(), study, arm, seed, out)
            except (FailedJobError, FailedSubmissionError) as error:
                refused: Future[ArmRun] = Future()
                refused.set_exception(TrainingError(f"it could not be submitted: {error}"))
                return refused
            write_atomic(record, f"{job.job_id}\n".encode())
        else:
            self._console.print(f"{arm}, seed {seed}: still job {job.job_id}", highlight=False)
        self._jobs.append(job)
        return JobHandle(job)

    def cancel(self) -> None:
        """Cancel what has not ended; a run that trains saves if Slurm gives it the time."""
        running = [job for job in self._jobs if not job.done()]
        for job in running:
            job.cancel(check=False)
        numbers = ", ".join(job.job_id for job in running)
        if running:
            self._console.print(
                f"jobs cancelled: {numbers}; running jobs save if Slurm leaves them time",
                highlight=False,
            )

    def _found(self, record: Path) -> Job[ArmRun | str] | None:
        """The job of a record if the cluster has it; another process's local one cannot be asked."""
        from submitit import SlurmJob

        if self._cluster != "slurm" or not record.is_file():
            return None
        job: SlurmJob[ArmRun | str] = SlurmJob(self._folder, record.read_text(encoding="ascii").strip())
        return None if job.done(force_check=True) or job.state == "UNKNOWN" else job


class _Run:
    """A run as a job calls it; at the end of its time the job is queued again, and resumes from its checkpoint."""

    def __call__(self, study: Study, arm: str, seed: int, out: Path) -> ArmRun | str:
        """The run, or why there is none: of an error submitit would keep the traceback only."""
        try:
            return run_arm(study, arm, seed, out, own_process=True)
        except EcdDeployError as error:
            return str(error)

    def checkpoint(self, study: Study, arm: str, seed: int, out: Path) -> DelayedSubmission:
        """What submitit queues again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, study, arm, seed, out)


class JobHandle:
    """A submitted run."""

    def __init__(self, job: Job[ArmRun | str]) -> None:
        self._job = job

    def done(self) -> bool:
        """Whether it has ended, as far as the cluster says."""
        return self._job.done()

    def result(self) -> ArmRun:
        """The run.

        Raises:
            TrainingError: it failed, or the job ended without a word.
        """
        from submitit.core.utils import UncompletedJobError

        try:
            outcome = self._job.result()
        except UncompletedJobError as error:
            raise TrainingError(
                f"job {self._job.job_id} failed: {_last_words(str(error))}; see {self._job.paths.stderr}"
            ) from error
        if isinstance(outcome, str):
            raise TrainingError(outcome)
        return outcome


def _named(settings: Settings) -> Settings:
    """The settings under the names of `update_parameters`.

    Raises:
        UsageError: there is no such setting.
    """
    shared, of_slurm = shared_settings(), slurm_settings()
    choices = tuple(sorted((shared | of_slurm) - _NOT_TO_SET))
    named: dict[str, Any] = {}
    for key, value in settings.items():
        name = key.removeprefix(_PREFIX)
        if name not in choices:
            raise UsageError(
                f"--slurm-set {key}: there is no such setting{did_you_mean(name, choices)}; choose from "
                + ", ".join(choices)
            )
        named[name if name in shared else _PREFIX + name] = value
    return named


def _last_words(text: str) -> str:
    """The last line of the log or traceback that submitit puts between rules, or its own first line."""
    own, *quoted = re.split(r"^-{20,}$", text, flags=re.MULTILINE)
    lines = (quoted[0] if quoted else "").strip().splitlines()
    return lines[-1] if lines else own.strip().splitlines()[0]
