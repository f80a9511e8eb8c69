"""Runs a command so that every outcome has its exit code, and only --debug shows a traceback."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from types import FrameType

import click

from ecd_deploy.errors import ArtefactError, EcdDeployError, Interrupted, Terminated, UsageError, machine_fault

_INTERNAL_ERROR = 70
_AS_PYTHON_SHOWS_IT = warnings.formatwarning
_SECONDS_TO_RAISE_AGAIN = 0.05


class _Terminated(BaseException):
    """SIGTERM came. No `Exception`, for libraries and this package take those for faults of the student."""


def invoke(command: click.Command, arguments: list[str]) -> int:
    """Run a command, print what went wrong, and return the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _raise_again
    warnings.formatwarning = lambda *words, **more: _printable(_AS_PYTHON_SHOWS_IT(*words, **more))
    debug, output = "--debug" in arguments, sys.stdout
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
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would change the exit code
        return _report("SIGTERM", Terminated.exit_code, debug=debug, kind="Stopped")
    except SystemExit as left:
        # Where nobody reads what is printed, click replaces the output and exits, and rich exits.
        if sys.stdout is not output or isinstance(left.__context__, BrokenPipeError):
            return _unread()
        message = f"code that was imported or called, such as the student's, called sys.exit({left.code!r}): remove it"
        return _report(message, UsageError.exit_code, debug=debug)
    except (KeyboardInterrupt, click.Abort):
        return _report("SIGINT", Interrupted.exit_code, debug=debug, kind="Stopped")
    except BrokenPipeError:
        return _unread()
    except Exception as error:  # noqa: BLE001 - the last resort, so that no user meets a traceback
        fault = machine_fault(error)
        if fault is not None:
            return _report(fault, ArtefactError.exit_code, debug=debug)
        kind = type(error).__name__
        return _report(f"internal error ({kind}: {error}); --debug shows where", _INTERNAL_ERROR, debug=debug)


def _unread() -> int:
    """What is left to print goes nowhere, and that is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """A signal that came while Python cleared an object away is lost there: it is raised again a moment later."""
    if issubclass(lost.exc_type, (_Terminated, KeyboardInterrupt)) and hasattr(signal, "setitimer"):
        interrupted = issubclass(lost.exc_type, KeyboardInterrupt)
        signal.signal(signal.SIGALRM, signal.default_int_handler if interrupted else _terminate)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_TO_RAISE_AGAIN)
    else:
        sys.__unraisablehook__(lost)


def _report(message: str, exit_code: int, *, debug: bool, kind: str = "Error") -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"{kind}: {_printable(message)}", err=True)
    return exit_code


def _printable(message: str) -> str:
    """What others wrote, a student's exception or warning for example, must not steer the terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in message)
