"""An artefact that is ready to run: by its runtime on the CPU, or by onnxruntime on another execution provider."""

from __future__ import annotations

from dataclasses import dataclass

from ecd_deploy.errors import ArtefactError, UsageError, reraise_machine_fault
from ecd_deploy.exporters.contract import Exporter, StudentBuilder
from ecd_deploy.exporters.onnx.session import session_predictor
from ecd_deploy.measure.device.runner.operators import operators_of
from ecd_deploy.measure.device.runner.sessions import CPU, open_session, providers_of
from ecd_deploy.measure.predictors.prediction import Predictor


@dataclass(frozen=True)
class Opened:
    """What runs an artefact.

    Attributes:
        predictor: of normalised images.
        provider: of onnxruntime, by its whole name; None where none was asked for.
        on_cpu: names of the operators that fell back from it to the CPU.
    """

    predictor: Predictor
    provider: str | None = None
    on_cpu: tuple[str, ...] = ()

    @property
    def coarse(self) -> bool:
        """Whether other kernels than the CPU's run, whose last bits may differ from batch to batch."""
        return self.provider not in (None, CPU)


def open_artefact(
    exporter: Exporter, data: bytes, build: StudentBuilder, *, provider: str | None = None, threads: int = 1
) -> Opened:
    """Make an artefact ready to run; what onnxruntime runs, on a provider if one is named.

    Args:
        exporter: of its format.
        data: its bytes.
        build: see `Exporter.open`.
        provider: `NAME` or `NAME:key=value,...`; None for the CPU's.
        threads: see `Exporter.open`.

    Raises:
        UsageError: there is no such provider here.
        ExportError: the bytes are no artefact of this format.
        ArtefactError: the provider cannot be used, or leaves every operator to the CPU.
    """
    if provider is None or exporter.runtime != "onnxruntime":
        return Opened(exporter.open(data, build, threads=threads))
    metadata = exporter.read_metadata(data)
    try:
        name = providers_of(provider)[0][0]
    except ValueError as error:
        raise UsageError(f"profile.provider {provider}: {error}") from error
    try:
        operators = operators_of(data, threads, provider)
        session = open_session(data, threads, provider)
    except Exception as error:
        reraise_machine_fault(error)
        raise ArtefactError(f"{exporter.filename} on profile.provider {provider}: {error}") from error
    on_cpu = sorted(entry["name"] for entry in operators if entry["provider"] == CPU != name)
    return Opened(session_predictor(session, metadata), name, tuple(on_cpu))
