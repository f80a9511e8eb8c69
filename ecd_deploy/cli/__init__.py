"""The command line: thin, and quick to start because each command imports what it needs."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ecd_deploy.cli.comparing import compare, studies
from ecd_deploy.cli.ending import console, finish
from ecd_deploy.cli.explaining import explain
from ecd_deploy.cli.gating import gate
from ecd_deploy.cli.inspecting import inspect
from ecd_deploy.cli.profiling import profile
from ecd_deploy.cli.searching import search
from ecd_deploy.cli.shipping import bundle
from ecd_deploy.cli.verifying import sign, verify
from ecd_deploy.errors import (
    ArtefactError,
    EcdDeployError,
    GateFailed,
    Interrupted,
    RunDirectoryError,
    Terminated,
    UsageError,
    machine_fault,
)

if TYPE_CHECKING:
    from ecd_deploy.recipe.recipe import Recipe

_INTERNAL_ERROR = 70
_SECONDS_TO_RAISE_AGAIN = 0.05
_SKIP_BAD = ("data.skip_bad=true",)

_run_directory = click.argument("run_dir", type=click.Path(path_type=Path))


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY.PATH=VALUE",
        help="Change one value of the recipe; repeatable.",
    )
    resume = click.option("--resume", is_flag=True, help="Resume from the newest checkpoint.")
    accept_changes = click.option(
        "--accept-changes",
        is_flag=True,
        help="Resume although the recipe, the images, the threads or the versions are not those of the checkpoint.",
    )
    skip_bad = click.option(
        "--skip-bad", is_flag=True, help="Leave images out that cannot be used; as data.skip_bad = true."
    )
    return overrides(resume(accept_changes(skip_bad(command))))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecd-deploy")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Train a small classifier with Explicit Connection Distillation and ship it.

    The student is trained together with a generated teacher, split off with a proof that nothing of
    the teacher is left, exported, compared with onnxruntime, timed, and passed or failed by a gate.

    Exit codes: 0 pass, 1 a limit is violated, 2 wrong call or recipe, 3 inconclusive,
    4 bad artefact or data, 70 internal error, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    del debug  # read in main, which reports errors


@cli.command()
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; default: runs/RECIPE-DATE-TIME.")
@click.option("--device", metavar="NAME", help="Take INT8 types, threads and budgets from this device.")
@_recipe_options
def run(
    recipe: str,
    out: Path | None,
    device: str | None,
    overrides: tuple[str, ...],
    resume: bool,
    accept_changes: bool,
    skip_bad: bool,
) -> None:
    """Run every step for RECIPE, a built-in name or a TOML file."""
    if resume and out is None:
        raise UsageError("--resume needs --out, the run directory to continue")
    loaded = _load_recipe(recipe, (*_device_overrides(device), *overrides, *_SKIP_BAD * skip_bad))
    from ecd_deploy.cli.text.summary import print_summary
    from ecd_deploy.pipelines.run import is_main_process
    from ecd_deploy.pipelines.run import run as run_pipeline

    directory = out or Path("runs") / f"{loaded.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    terminal = console()
    if is_main_process():
        terminal.print(loaded.name, style="bold", end=" ")
        terminal.print(f"in {directory}")
    results = run_pipeline(loaded, directory, resume=resume, console=terminal, accept_changes=accept_changes)
    if results is not None:
        print_summary(results, directory, terminal)
        finish(results.gate, directory)


@cli.command()
@_run_directory
@click.option("--recipe", help="A built-in name or a TOML file; not needed with --resume.")
@_recipe_options
def train(
    run_dir: Path, recipe: str | None, overrides: tuple[str, ...], resume: bool, accept_changes: bool, skip_bad: bool
) -> None:
    """Train only, into RUN_DIR."""
    loaded = _recipe_of(run_dir, recipe, overrides + _SKIP_BAD * skip_bad, resume=resume)
    from ecd_deploy.pipelines.report.words import describe_training
    from ecd_deploy.pipelines.run import run_train

    result = run_train(loaded, run_dir, resume=resume, console=console(), accept_changes=accept_changes)
    if result is not None:
        click.echo(describe_training(result))


@cli.command()
@_run_directory
def split(run_dir: Path) -> None:
    """Split the student off and prove it separate."""
    from ecd_deploy.pipelines.run import run_split

    proof = run_split(run_dir)
    from ecd_deploy.pipelines.report.words import describe_proof

    for name, found in describe_proof(proof):
        click.echo(f"{name}: {found}")


@cli.command()
@_run_directory
def export(run_dir: Path) -> None:
    """Write the student in every format of the recipe."""
    from ecd_deploy.pipelines.run import run_export

    for artefact in run_export(run_dir).artefacts:
        click.echo(f"{artefact.file}  {artefact.bytes:,} bytes  sha256 {artefact.sha256}")


@cli.command()
@_run_directory
def validate(run_dir: Path) -> None:
    """Compare every artefact with the PyTorch student, and measure accuracy with onnxruntime."""
    from ecd_deploy.pipelines.run import run_validate

    validation = run_validate(run_dir)
    for entry in validation.artefacts:
        problem = entry.parity.problem()
        click.echo(f"{entry.format}: " + (problem or f"largest difference {entry.parity.max_abs_diff:.2g}"))
        if entry.help is not None:
            click.echo(f"  {entry.help.words()}: {entry.help.reason}")
    click.echo(f"recommended on a host like this one: {validation.recommended}")
    paired = validation.onnx_top1
    click.echo(f"top-1: PyTorch {paired.reference.accuracy:.2%}, ONNX {paired.candidate.accuracy:.2%}")
    if any(entry.parity.problem() for entry in validation.artefacts):
        raise GateFailed(f"an artefact's logits cannot be compared with the student's; see {run_dir}/validation.json")


@cli.command()
@_run_directory
@click.option(
    "--against", type=click.Path(path_type=Path), multiple=True, help="Another run to set beside this one; repeatable."
)
def report(run_dir: Path, against: tuple[Path, ...]) -> None:
    """Write report.html and report.md from what the steps left."""
    from ecd_deploy.pipelines.run import run_report

    click.echo(run_report(run_dir, against))


@cli.command()
def recipes() -> None:
    """List the built-in recipes."""
    from ecd_deploy.recipe.recipe import builtin_recipes, load_recipe

    for name in builtin_recipes():
        click.echo(f"{name:20} {load_recipe(name).description}")


@cli.command()
def models() -> None:
    """List the built-in students with their parameters."""
    from ecd_deploy.pipelines.inspect.catalogue import describe_students

    for entry in describe_students():
        click.echo(f"{entry.name:14} {entry.parameters:>10,} parameters at 100 classes")
    click.echo("wrn-D-K        any depth D = 6n + 4 and width K")
    click.echo("torchvision:NAME, timm:NAME, package.module:factory")


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    import json

    from ecd_deploy.recipe.recipe import Recipe

    click.echo(json.dumps(Recipe.model_json_schema(), indent=2))


@cli.command()
def doctor() -> None:
    """Show versions and hardware, and check that the runtimes work."""
    from ecd_deploy.pipelines.inspect.doctor import diagnose

    diagnose(console())


class _Terminated(BaseException):
    """SIGTERM came. No `Exception`, for libraries and this package take those for faults of the student."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: every outcome has its exit code, and only --debug shows a traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _raise_again
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    sys.exit(_invoke(arguments, debug=debug))


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """A signal that came while Python cleared an object away is lost there: it is raised again a moment later."""
    if issubclass(lost.exc_type, (_Terminated, KeyboardInterrupt)):
        interrupted = issubclass(lost.exc_type, KeyboardInterrupt)
        signal.signal(signal.SIGALRM, signal.default_int_handler if interrupted else _terminate)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_TO_RAISE_AGAIN)
    else:
        sys.__unraisablehook__(lost)


def _invoke(arguments: list[str], *, debug: bool) -> int:
    try:
        result = cli.main(arguments, prog_name="ecd-deploy", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except Interrupted as stop:
        return _report(str(stop), stop.exit_code, debug=debug, kind="Stopped")
    except EcdDeployError as error:
        return _report(str(error), error.exit_code, debug=debug)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would change the exit code
        return _report("SIGTERM", Terminated.exit_code, debug=debug, kind="Stopped")
    except (KeyboardInterrupt, click.Abort):
        return _report("SIGINT", Interrupted.exit_code, debug=debug, kind="Stopped")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort, so that no user meets a traceback
        fault = machine_fault(error)
        if fault is not None:
            return _report(fault, ArtefactError.exit_code, debug=debug)
        kind = type(error).__name__
        return _report(f"internal error ({kind}: {error}); --debug shows where", _INTERNAL_ERROR, debug=debug)


def _report(message: str, exit_code: int, *, debug: bool, kind: str = "Error") -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"{kind}: {message}", err=True)
    return exit_code


def _device_overrides(name: str | None) -> tuple[str, ...]:
    if name is None:
        return ()
    from ecd_deploy.pipelines.device.budgets import load_device

    return load_device(name).overrides()


def _load_recipe(recipe: str, overrides: tuple[str, ...]) -> Recipe:
    from ecd_deploy.recipe.recipe import load_recipe

    return load_recipe(recipe, overrides)


def _recipe_of(run_dir: Path, recipe: str | None, overrides: tuple[str, ...], *, resume: bool) -> Recipe:
    if recipe is not None:
        return _load_recipe(recipe, overrides)
    recorded = run_dir / "recipe.toml"
    if not resume or not recorded.is_file():
        raise RunDirectoryError(f"say what to train: ecd-deploy train {run_dir} --recipe RECIPE")
    return _load_recipe(str(recorded), overrides)


for _command in (bundle, compare, studies, explain, gate, profile, search, inspect, sign, verify):
    cli.add_command(_command)
