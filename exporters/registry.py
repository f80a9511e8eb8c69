"""Which formats there are."""

from __future__ import annotations

from ecd_deploy.config import ExportConfig
from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.contract import Exporter
from ecd_deploy.exporters.onnx_file import OnnxExporter
from ecd_deploy.exporters.safetensors_file import SafetensorsExporter
from ecd_deploy.exporters.torchscript import TorchScriptExporter


def exporter_for(format_name: str, config: ExportConfig) -> Exporter:
    """Return the exporter of a format, set up as the recipe says.

    Raises:
        ExportError: there is no such format.
    """
    exporters: tuple[Exporter, ...] = (SafetensorsExporter(), TorchScriptExporter(), OnnxExporter(config.opset))
    for exporter in exporters:
        if exporter.format == format_name:
            return exporter
    raise ExportError(f"no format '{format_name}'; there are {', '.join(exporter.format for exporter in exporters)}")
