"""`ecd-deploy profile`: a run directory or a bare ONNX file, with the call's own conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ecd_deploy.config import ProfileConfig
from ecd_deploy.errors import UsageError
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.profile import Profile, profile, profile_file
from ecd_deploy.pipelines.run_directory import open_run


def profile_target(
    target: Path, *, threads: int | None, cpus: str | None, memory_mb: int | None, output: Path | None
) -> Profile:
    """Measure a run's ONNX student, or an ONNX file, on this host.

    Args:
        target: a run directory, where `profile.json` is written, or an `.onnx` file.
        threads: of onnxruntime; None for the recipe's, or one.
        cpus: CPUs to pin to, with commas; None for all.
        memory_mb: limit on the process's data in 1e6 bytes; None for none.
        output: where the result goes as well.

    Raises:
        UsageError: the target or a condition cannot be used.
        ArtefactError: the model cannot be read or run.
    """
    changes = {"threads": threads, "cpus": parse_cpus(cpus), "memory_mb": memory_mb}
    if target.suffix == ".onnx":
        found = profile_file(target, changed(ProfileConfig(), changes))
    else:
        with open_run(target) as directory:
            found = profile(directory, changed(directory.recipe.profile, changes))
    if output is not None:
        write_atomic(output, (found.model_dump_json(indent=2) + "\n").encode())
    return found


def parse_cpus(text: str | None) -> tuple[int, ...] | None:
    """Read CPU numbers.

    Raises:
        UsageError: they are not numbers.
    """
    if text is None:
        return None
    if not all(part.isdecimal() for part in text.split(",")):
        raise UsageError(f"--cpus {text}: expected numbers with commas, for example 0,1")
    return tuple(int(part) for part in text.split(","))


def changed(config: ProfileConfig, changes: dict[str, Any]) -> ProfileConfig:
    """A `[profile]` section with the values that are not None.

    Raises:
        UsageError: a value cannot be used.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return ProfileConfig.model_validate({**config.model_dump(), **given})
    except ValidationError as error:
        raise UsageError(f"cannot measure so: {error.errors()[0]['msg']}") from error
