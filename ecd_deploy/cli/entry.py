"""Runs a command so that every outcome has its exit code, and only --debug shows a traceback."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType

import click

from ecd_deploy.errors import EcdDeployError, Interrupted, Terminated

_INTERNAL_ERROR = 70


def invoke(command: click.Command, arguments: list[str]) -> int:
    """Run a command, print what went wrong, and return the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    debug = "--debug" in arguments
    try:
        result = command.main(arguments, prog_name="ecd-deploy", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except Interrupted as stop:
        return _report(str(stop), stop.exit_code, debug=debug, kind="Stopped")
    except EcdDeployError as error:
        return _report(str(error), error.exit_code, debug=debug)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _report("SIGINT", Interrupted.exit_code, debug=debug, kind="Stopped")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort, so that no user meets a traceback
        kind = type(error).__name__
        return _report(f"internal error ({kind}: {error}); --debug shows where", _INTERNAL_ERROR, debug=debug)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated("SIGTERM")


def _report(message: str, exit_code: int, *, debug: bool, kind: str = "Error") -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"{kind}: {message}", err=True)
    return exit_code
