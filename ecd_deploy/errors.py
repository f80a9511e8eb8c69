"""Errors that a user meets, each with the exit code of the command it ends.

```
EcdDeployError            70  a fault of this program
├── UsageError             2  the call or the configuration is wrong
│   ├── RecipeError        2  a recipe's key, value or file
│   ├── StudentError       2  a student that cannot be built or treated
│   └── RunDirectoryError  2  the output directory is taken, absent or of another run
├── GateFailed             1  a limit is violated; a report was written
├── Inconclusive           3  the evidence is too thin to pass or to fail
├── Interrupted          130  SIGINT came; what was done is saved
│   └── Terminated       143  SIGTERM came; what was done is saved
└── ArtefactError          4  a bad artefact, bad data or a broken run
    ├── DataError          4  images, folders or labels that cannot be used
    ├── DigestError        4  a file's bytes are not those that were recorded
    ├── SchemaError        4  a file of another version of this program
    ├── CheckpointError    4  no valid checkpoint, or one that cannot be written
    ├── TrainingError      4  training cannot continue (a loss that is not finite)
    ├── SplitError         4  the student is not separate from the teacher
    └── ExportError        4  an artefact that cannot be written or opened
```

Outside of a training, signals end a command with the same codes.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Sequence
from typing import ClassVar

_OF_THE_MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)
_MOST_LISTED = 20  # names that an error lists
_LONGEST = 300


class EcdDeployError(Exception):
    """Base of every error of this package; its text is shown to the user as it is."""

    exit_code: ClassVar[int] = 70


class UsageError(EcdDeployError):
    """The call or the configuration is wrong: nothing was started."""

    exit_code: ClassVar[int] = 2


class RecipeError(UsageError):
    """A recipe is missing or has an unknown, duplicate or unusable key."""


class StudentError(UsageError):
    """A student cannot be built, or its structure cannot be treated."""


class RunDirectoryError(UsageError):
    """A run directory is in use, absent, or belongs to another run."""


class GateFailed(EcdDeployError):
    """At least one limit is violated; the report was written before this was raised."""

    exit_code: ClassVar[int] = 1


class Inconclusive(EcdDeployError):
    """No limit is violated, but at least one could not be decided."""

    exit_code: ClassVar[int] = 3


class Interrupted(EcdDeployError):
    """SIGINT came: the step that was running ended and was saved."""

    exit_code: ClassVar[int] = 130


class Terminated(Interrupted):
    """SIGTERM came: the step that was running ended and was saved."""

    exit_code: ClassVar[int] = 143


class ArtefactError(EcdDeployError):
    """A bad artefact, bad data, or a run that broke."""

    exit_code: ClassVar[int] = 4


class DataError(ArtefactError):
    """Images, folders or labels that cannot be used."""


class DigestError(ArtefactError):
    """A file's bytes are not those that were recorded when it was written."""


class SchemaError(ArtefactError):
    """A file has another `schema_version` than the one that this version writes and reads."""


class CheckpointError(ArtefactError):
    """No valid checkpoint is left, or a checkpoint cannot be written."""


class TrainingError(ArtefactError):
    """Training cannot continue, for example because the loss is not finite."""


class SplitError(ArtefactError):
    """The student is not separate from the teacher; the offending path is in the text."""


class ExportError(ArtefactError):
    """An artefact cannot be written or opened."""


def machine_fault(error: BaseException) -> str | None:
    """What the machine lacks, if that is why this was raised: memory, disk or files; None for any other cause.

    Libraries raise errors of their own from such faults, so causes are followed.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        # torch is not imported here; its class for a GPU's memory has this name.
        if isinstance(found, MemoryError) or type(found).__name__ == "OutOfMemoryError":
            return "the memory is used up"
        if isinstance(found, OSError) and found.errno in _OF_THE_MACHINE:
            return f"{found.strerror}: {found.filename}" if found.filename else found.strerror
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return None


def reraise_machine_fault(error: Exception) -> None:
    """Raise the error again if the machine is to blame: call it before an error is laid to a student or a file."""
    if machine_fault(error) is not None:
        raise error


def first_line(error: Exception) -> str:
    """What others raised, in one line: its class, and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:_LONGEST] if lines else 'no message'}"


def did_you_mean(word: str, choices: tuple[str, ...]) -> str:
    """Return what an error appends to a wrong name: the most similar choice, or nothing."""
    close = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def listed(names: Sequence[str]) -> str:
    """Names as an error lists them: the first twenty, and how many more there are."""
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"{', '.join(names[:_MOST_LISTED])}{more}"
