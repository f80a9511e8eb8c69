"""Step 5: latency, memory and cost by layer of an ONNX student, on this host or as one of its devices."""

from __future__ import annotations

from ecd_deploy.measure.latency import measure_onnx
from ecd_deploy.measure.untrusted import Limits
from ecd_deploy.pipelines.record.artefacts import ArtefactList
from ecd_deploy.pipelines.record.names import PROFILE_NAME
from ecd_deploy.pipelines.record.profile import Profile, describe
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.recipe.profile import ProfileConfig


def measure(directory: RunDirectory, exported: ArtefactList, config: ProfileConfig | None = None) -> Profile:
    """Measure the ONNX student as the recipe's `[profile]` says, or as `config` does instead.

    Raises:
        ArtefactError: the artefact was changed or does not run.
    """
    file = exported.find("onnx").file
    result = profile_bytes(file, directory.read(file), config or directory.recipe.profile)
    directory.write_json(PROFILE_NAME, result)
    return result


def profile_bytes(file: str, model: bytes, config: ProfileConfig, limits: Limits | None = None) -> Profile:
    """Measure a model in a child process on this host, within limits if its origin is unknown."""
    measurement = measure_onnx(model, config, limits=limits)
    return describe(file, model, measurement, "constrained host" if measurement.constrained else "host")
