"""Step 5: the latency of the ONNX student on this host."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ecd_deploy.measure.latency import Latency, measure_onnx_latency
from ecd_deploy.pipelines.export import ARTEFACTS_NAME, ArtefactList
from ecd_deploy.pipelines.run_directory import RunDirectory

PROFILE_NAME = "profile.json"


class Profile(BaseModel):
    """Written to `profile.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    file: str
    sha256: str
    latency: Latency


def profile(directory: RunDirectory) -> Profile:
    """Measure latency with onnxruntime as the recipe's `[profile]` says.

    Raises:
        RunDirectoryError: nothing was exported yet.
        ArtefactError: the artefact was changed or does not run.
    """
    artefacts = directory.read_json(ARTEFACTS_NAME, ArtefactList, made_by="export")
    onnx = artefacts.find("onnx")
    latency = measure_onnx_latency(directory.read(onnx.file), artefacts.image_shape, directory.recipe.profile)
    result = Profile(file=onnx.file, sha256=onnx.sha256, latency=latency)
    directory.write_json(PROFILE_NAME, result)
    return result
