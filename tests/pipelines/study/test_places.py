"""Runs of a study as jobs: submitit's local executor, and Slurm's commands as short scripts."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from ecd_deploy.cli import cli
from ecd_deploy.errors import TrainingError, UsageError
from ecd_deploy.pipelines.record.run_directory import create_run
from ecd_deploy.pipelines.study.places import executor
from ecd_deploy.pipelines.study.run import ArmRun, run_arm
from ecd_deploy.pipelines.study.runner import _settle, compare
from ecd_deploy.pipelines.study.slurm import Jobs, parse_settings
from ecd_deploy.pipelines.study.study import Arm, Study, recipe_of, run_directory

SlurmJob = pytest.importorskip("submitit", reason="needs submitit, which is not installed").SlurmJob
BAD = Arm(name="bad", set=("method.stages=[7]",))


def tiny(*arms: Arm, threads: int = 1) -> Study:
    settings = ["data.train_limit=40", "data.test_limit=30", "train.epochs=1", "train.batch_size=18"]
    settings += ["train.trackers=[]", "train.warmup_epochs=0.0", f"train.threads={threads}"]
    baseline = Arm(name="baseline", set=("method.name=plain",))
    return Study(
        name="tiny", recipe="digits", seeds=(0,), baseline="baseline", set=tuple(settings), arms=(baseline, *arms)
    )


def quiet() -> Console:
    return Console(quiet=True)


class Cluster:
    """Slurm's commands as scripts that run nothing: they note what they are asked, and every job's state is `state`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.state = "PENDING"
        (folder / "count").write_text("100")
        self.define("srun", "exit 1")
        self.define(
            "sbatch", 'n=$(($(cat count) + 1)); echo $n > count; cp "$1" "$n.sh"; echo "Submitted batch job $n"'
        )
        self.define("scancel", 'echo "$1" >> cancelled')
        self.define(
            "sacct", 'echo "JobID|State|NodeList"; for n in $(seq 101 "$(cat count)"); do echo "$n|$(cat state)|"; done'
        )

    def define(self, command: str, body: str) -> None:
        path = self._folder / command
        path.write_text(f'#!/bin/bash\ncd "{self._folder}"\n{body}\n')
        path.chmod(0o755)

    @property
    def state(self) -> str:
        return (self._folder / "state").read_text()

    @state.setter
    def state(self, value: str) -> None:
        (self._folder / "state").write_text(value)

    @property
    def submitted(self) -> list[str]:
        return [path.read_text() for path in sorted(self._folder.glob("*.sh"))]

    @property
    def cancelled(self) -> list[str]:
        log = self._folder / "cancelled"
        return log.read_text().split() if log.is_file() else []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    SlurmJob.watcher.clear()
    return Cluster(folder)


def test_submitit_runs_a_study_and_brings_a_failed_runs_own_words(tmp_path: Path) -> None:
    study = tiny(BAD)
    with pytest.raises(TrainingError) as failed:
        compare(study, tmp_path, resume=False, place="local", console=quiet())
    assert str(failed.value).startswith("1 of 2 runs failed:\n  bad, seed 0: the student has no stage 7; ")
    assert "Traceback" not in str(failed.value)
    (row,) = csv.DictReader((tmp_path / "study.csv").read_text().splitlines())
    assert row["arm"] == "baseline"
    run = ArmRun.model_validate_json((run_directory(tmp_path, "baseline", 0) / "arm.json").read_text())
    assert run.peak_memory_mib is not None  # of a process of its own
    # what is finished is not submitted again
    good = tiny()
    before = sorted((tmp_path / "submitit").iterdir())
    compare(good, tmp_path, resume=True, place="local", console=quiet())
    assert sorted((tmp_path / "submitit").iterdir()) == before


def test_a_job_asks_for_what_the_recipe_and_the_user_say(cluster: Cluster, tmp_path: Path) -> None:
    settings = parse_settings(
        ["partition=gpu", "slurm_account=me", "gpus_per_node=1", "mem_gb=7.5", 'setup=["module"]']
    )
    jobs = Jobs("slurm", tmp_path / "study", settings, quiet())
    jobs.start(tiny(threads=3), "baseline", 0, tmp_path / "study")
    other = Jobs("slurm", tmp_path / "other", parse_settings(["cpus_per_task=2", "timeout_min=30"]), quiet())
    other.start(tiny(threads=3), "baseline", 0, tmp_path / "other")
    rich, plain = cluster.submitted
    for line in ("partition=gpu", "account=me", "gpus-per-node=1", "mem=7680MB", "time=1440", "cpus-per-task=3"):
        assert f"#SBATCH --{line}\n" in rich
    assert "#SBATCH --job-name=tiny.baseline.0\n" in rich
    assert "\nmodule\n" in rich
    assert "#SBATCH --cpus-per-task=2\n" in plain
    assert "#SBATCH --time=30\n" in plain
    assert "gpu" not in plain


def test_a_job_without_threads_does_not_ask_for_those_of_the_one_before(cluster: Cluster, tmp_path: Path) -> None:
    jobs = Jobs("slurm", tmp_path, {}, quiet())
    jobs.start(tiny(threads=3), "baseline", 0, tmp_path)
    unset = tiny(BAD)
    jobs.start(unset.model_copy(update={"set": unset.set[:-1]}), "bad", 0, tmp_path)
    assert "#SBATCH --cpus-per-task=3\n" in cluster.submitted[0]
    assert "#SBATCH --cpus-per-task=1\n" in cluster.submitted[1]


def test_a_job_of_the_study_as_it_was_is_no_run_of_it(tmp_path: Path) -> None:
    changed = tiny()
    run = run_arm(
        changed.model_copy(update={"set": (*changed.set, "train.momentum=0.5")}),
        "baseline",
        0,
        tmp_path,
        own_process=False,
    )
    finished: list[ArmRun] = []
    failures: list[str] = []
    digest = recipe_of(changed, changed.arm("baseline"), 0, tmp_path).digest()
    _settle("baseline, seed 0", run, digest, finished, failures, quiet())
    assert finished == []
    assert failures == ["baseline, seed 0: it ran another recipe than the study's; choose another --out"]
    _settle("baseline, seed 0", run, run.recipe_digest, finished, failures, quiet())
    assert finished == [run]


def test_a_job_at_the_end_of_its_time_is_queued_again_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    study = tiny()
    jobs = Jobs("slurm", tmp_path, {}, quiet())
    jobs.start(study, "baseline", 0, tmp_path)
    assert len(cluster.submitted) == 1
    again = jobs._jobs[0].submission()._checkpoint_function()
    assert again is not None
    assert again.args == (study, "baseline", 0, tmp_path)
    assert callable(again.function)


def test_a_job_that_waits_or_runs_is_found_again(cluster: Cluster, tmp_path: Path) -> None:
    key = (tiny(), (("baseline", 0),), tmp_path / "study")

    def start_in_another_process() -> None:
        SlurmJob.watcher.clear()
        with executor("slurm", 1, tmp_path / "study", quiet(), {}) as start:
            start(*key)

    for state, jobs in (("PENDING", 1), ("RUNNING", 1), ("FAILED", 2), ("RUNNING", 2)):
        cluster.state = state
        start_in_another_process()
        assert len(cluster.submitted) == jobs, state
    assert cluster.cancelled == []


def test_an_interruption_cancels_what_was_submitted(cluster: Cluster, tmp_path: Path) -> None:
    text = io.StringIO()

    def interrupted() -> None:
        with executor("slurm", 1, tmp_path / "study", Console(file=text), {}) as start:
            start(tiny(BAD), (("baseline", 0),), tmp_path / "study")
            start(tiny(BAD), (("bad", 0),), tmp_path / "study")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cluster.cancelled == ["101", "102"]
    assert "jobs cancelled: 101, 102" in text.getvalue()


def test_a_job_that_breaks_or_is_refused_is_that_runs_failure(cluster: Cluster, tmp_path: Path) -> None:
    jobs = Jobs("slurm", tmp_path, {}, quiet())
    handle = jobs.start(tiny(), "baseline", 0, tmp_path)
    (log,) = (tmp_path / "submitit").glob("101_submission.sh")
    log.with_name("101_0_log.err").write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    cluster.state = "OUT_OF_MEMORY"
    SlurmJob.watcher.clear()
    SlurmJob._results_timeout_s, usual = 0, SlurmJob._results_timeout_s
    try:
        assert handle.done()
        with pytest.raises(TrainingError, match="job 101 failed: slurmstepd: error: Detected 1 oom_kill event; see "):
            handle.result()
    finally:
        SlurmJob._results_timeout_s = usual
    cluster.define("sbatch", "echo 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1")
    with pytest.raises(TrainingError, match="could not be submitted: sbatch: error: invalid partition"):
        jobs.start(tiny(), "baseline", 0, tmp_path).result()


def test_settings_that_slurm_does_not_know_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match=r"partitio: there is no .*\(did you mean 'partition'\?\); choose from account, "
    ):
        Jobs("local", tmp_path, parse_settings(["partitio=gpu"]), quiet())
    with pytest.raises(UsageError, match="--slurm-set nodes: there is no such setting"):
        Jobs("local", tmp_path, parse_settings(["nodes=2"]), quiet())
    with pytest.raises(UsageError, match="--slurm-set gpus_per_node='one': submitit cannot use it"):
        Jobs("local", tmp_path, parse_settings(["gpus_per_node=one"]), quiet())
    with pytest.raises(UsageError, match="'partition' is not KEY=VALUE"):
        parse_settings(["partition"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no srun on this one's PATH"):
        Jobs("slurm", tmp_path, {}, quiet())


def test_settings_without_slurm_are_refused() -> None:
    done = CliRunner().invoke(cli, ["compare", "table-1", "--slurm-set", "partition=gpu"])
    assert isinstance(done.exception, UsageError)
    assert "add --slurm" in str(done.exception)


def test_a_run_that_another_process_holds_is_not_touched(tmp_path: Path) -> None:
    study = tiny()
    root = run_directory(tmp_path, "baseline", 0)
    with create_run(root, recipe_of(study, study.arm("baseline"), 0, tmp_path), resume=False):
        before = {path: path.read_bytes() for path in root.iterdir()}
        with pytest.raises(
            TrainingError, match=r"1 of 1 runs failed:\n  baseline, seed 0: .* is in use by another run"
        ):
            compare(study, tmp_path, resume=True, place="here", console=quiet())
        assert {path: path.read_bytes() for path in root.iterdir()} == before
    finished = compare(study, tmp_path, resume=True, place="here", console=quiet())
    with create_run(root, recipe_of(study, study.arm("baseline"), 0, tmp_path), resume=True):
        assert compare(study, tmp_path, resume=True, place="here", console=quiet()) == finished
