"""Step 5: latency, memory and cost by layer of what ships, on this host or as one of its devices."""

from __future__ import annotations

from ecd_deploy.measure.latency.measurement import measure_onnx
from ecd_deploy.measure.predictors.untrusted import Limits
from ecd_deploy.pipelines.record.names import PROFILE_NAME, PROFILES_FOLDER
from ecd_deploy.pipelines.record.profile import Profile, describe
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.recipe.profile import ProfileConfig


def measure(
    directory: RunDirectory, validation: Validation, config: ProfileConfig | None = None, choice: str | None = None
) -> tuple[Profile, ...]:
    """Measure artefacts as the recipe's `[profile]` says, or as `config` does instead.

    What ships, or the first of these, is kept in `profile.json`, each other one in `profiles/FORMAT.json`.

    Args:
        directory: of the run.
        validation: which says what ships.
        config: in place of the recipe's.
        choice: of the artefacts, as in `gate.artefact`; None for the recipe's.

    Raises:
        UsageError: there is no such artefact.
        ArtefactError: an artefact was changed or does not run.
    """
    found = []
    for entry in validation.shipping(choice or directory.recipe.gate.artefact):
        result = profile_bytes(entry.file, directory.read(entry.file), config or directory.recipe.profile)
        directory.write_json(profile_name(directory, validation, entry.format), result)
        found.append(result)
    return tuple(found)


def profile_name(directory: RunDirectory, validation: Validation, format_name: str) -> str:
    """Where the profile of an artefact is kept."""
    first = validation.shipping(directory.recipe.gate.artefact)[0].format
    return PROFILE_NAME if format_name == first else f"{PROFILES_FOLDER}/{format_name}.json"


def profile_bytes(file: str, model: bytes, config: ProfileConfig, limits: Limits | None = None) -> Profile:
    """Measure a model in a child process on this host, within limits if its origin is unknown."""
    measurement = measure_onnx(model, config, limits=limits)
    return describe(file, model, measurement, "constrained host" if measurement.constrained else "host")
