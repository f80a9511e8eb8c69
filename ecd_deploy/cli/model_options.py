"""What the commands for models and images have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ecd_deploy.errors import UsageError

DATA_HELP: Final = (
    "Images as FOLDER/CLASS/*, or a table, FILE.csv or FILE.parquet, with the columns path and label; Parquet (extra "
    "[parquet]) may have a column image of encoded images instead of path. Of a column split only the test images "
    "count, and other columns are slices."
)


def parse_shape(shape: str | None, option: str = "--shape") -> tuple[int, int] | None:
    """Height and width of `--shape`, or of another option.

    Raises:
        UsageError: it is no height and width.
    """
    if shape is None:
        return None
    height, separator, width = shape.lower().partition("x")
    if not (separator and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"{option} {shape}: expected HEIGHTxWIDTH in pixels, for example 224x224")
    return int(height), int(width)


def size_override(shape: str | None) -> tuple[str, ...]:
    """`--shape` as the value of `input.size`; see `parse_shape`."""
    size = parse_shape(shape)
    return () if size is None else (f"input.size=[{size[0]}, {size[1]}]",)


def refuse_other_keys(command: str, overrides: tuple[str, ...], *prefixes: str) -> None:
    """Check that `--set` sets nothing that is without effect on a command.

    Raises:
        UsageError: a value has none of the prefixes.
    """
    for given in overrides:
        if not given.startswith(prefixes):
            keys = " or ".join(f"{prefix.rstrip('.=')}{'.KEY' * prefix.endswith('.')}" for prefix in prefixes)
            raise UsageError(f"--set {given}: without effect on {command}, which takes {keys}")


def default_output(target: Path) -> Path:
    """The folder beside which nothing was named: `NAME-gate`, without the ending of a model or an archive."""
    name = target.resolve().name
    ending = next((ending for ending in (".tar.gz", ".tgz", ".onnx") if name.endswith(ending)), "")
    return Path(f"{name.removesuffix(ending)}-gate")


def refuse_without_data(command: str, target: Path, **given: object) -> None:
    """Check that a command without --data was given a run directory and none of the options for a model.

    Raises:
        UsageError: it was not.
    """
    if target.is_file():
        raise UsageError(f"{command} {target}: a file is evaluated first; give images with --data FOLDER")
    named = [f"--{name.replace('_', '-').replace('overrides', 'set')}" for name, value in given.items() if value]
    if named:
        raise UsageError(f"{' and '.join(named)}: only with --data")
