"""What was measured of an artefact: latency, memory, and cost by layer of an ONNX file."""

from __future__ import annotations

from typing import Literal

from ecd_deploy.errors import ArtefactError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.latency.layers import LayerCost, layer_costs
from ecd_deploy.measure.latency.measurement import Latency, Measurement
from ecd_deploy.measure.predictors.untrusted import is_ort
from ecd_deploy.records import Record


class Profile(Record):
    """Written to `profile.json`."""

    schema_version: Literal[2] = 2
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


def describe(file: str, model: bytes, measurement: Measurement, place: str) -> Profile:
    """Put a measurement together with the layers of its model.

    Raises:
        ArtefactError: other bytes were measured.
    """
    digest = sha256_bytes(model)
    if measurement.model.sha256 != digest:
        raise ArtefactError(f"{place} measured another file than {file}: SHA-256 {measurement.model.sha256}")
    layers = layer_costs(model, measurement) if measurement.operators and not is_ort(model) else ()
    return Profile(file=file, sha256=digest, place=place, measurement=measurement, layers=layers)
