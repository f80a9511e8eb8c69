"""Step 5: latency, memory and cost by layer of an ONNX student, on this host or as one of its devices."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ecd_deploy.errors import ArtefactError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.gate_config import ProfileConfig
from ecd_deploy.measure.foreign import check_foreign
from ecd_deploy.measure.latency import Latency, Measurement, measure_onnx
from ecd_deploy.measure.layers import LayerCost, layer_costs
from ecd_deploy.pipelines.artefacts import ARTEFACTS_NAME, ArtefactList
from ecd_deploy.pipelines.run_directory import RunDirectory

PROFILE_NAME = "profile.json"


class Profile(BaseModel):
    """Written to `profile.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 2
    file: str
    sha256: str
    place: str
    """"host", "constrained host", or the device on which it was measured."""
    measurement: Measurement
    layers: tuple[LayerCost, ...] = ()

    @property
    def latency(self) -> Latency:
        """The latency of the measurement."""
        return self.measurement.latency


def profile(directory: RunDirectory, config: ProfileConfig | None = None) -> Profile:
    """Measure the ONNX student as the recipe's `[profile]` says, or as `config` does instead.

    Raises:
        RunDirectoryError: nothing was exported yet.
        ArtefactError: the artefact was changed or does not run.
    """
    artefacts = directory.read_json(ARTEFACTS_NAME, ArtefactList, made_by="export")
    file = artefacts.find("onnx").file
    result = profile_bytes(file, directory.read(file), config or directory.recipe.profile)
    directory.write_json(PROFILE_NAME, result)
    return result


def profile_file(path: Path, config: ProfileConfig) -> Profile:
    """Measure an ONNX file that belongs to no run.

    Raises:
        ArtefactError: it cannot be read or run.
    """
    try:
        model = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror}") from error
    check_foreign(model, path.name)
    return profile_bytes(path.name, model, config)


def profile_bytes(file: str, model: bytes, config: ProfileConfig) -> Profile:
    """Measure a model in a child process on this host."""
    measurement = measure_onnx(model, config)
    return describe(file, model, measurement, "constrained host" if measurement.constrained else "host")


def describe(file: str, model: bytes, measurement: Measurement, place: str) -> Profile:
    """Put a measurement together with the layers of its model.

    Raises:
        ArtefactError: other bytes were measured.
    """
    digest = sha256_bytes(model)
    if measurement.model.sha256 != digest:
        raise ArtefactError(f"{place} measured another file than {file}: SHA-256 {measurement.model.sha256}")
    layers = layer_costs(model, measurement)
    return Profile(file=file, sha256=digest, place=place, measurement=measurement, layers=layers)
