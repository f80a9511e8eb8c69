"""Which formats there are: those of this package, and those that other packages announce."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.contract import Exporter
from ecd_deploy.exporters.executorch.exporter import ExecuTorchExporter
from ecd_deploy.exporters.onnx.fp16 import HalfOnnxExporter
from ecd_deploy.exporters.onnx.fp32 import OnnxExporter
from ecd_deploy.exporters.onnx.int8 import Int8OnnxExporter
from ecd_deploy.exporters.onnx.static import StaticOnnxExporter
from ecd_deploy.exporters.openvino.exporter import OpenVinoExporter
from ecd_deploy.exporters.ort.exporter import OrtExporter
from ecd_deploy.exporters.pytorch.pt2 import Pt2Exporter
from ecd_deploy.exporters.pytorch.safetensors_file import SafetensorsExporter
from ecd_deploy.exporters.pytorch.torchscript import TorchScriptExporter
from ecd_deploy.recipe.export import BUILTIN_FORMATS, ENTRY_POINT_GROUP, ExportConfig, format_names

_BUILTIN: dict[str, Callable[[ExportConfig], Exporter]] = {
    "safetensors": lambda _: SafetensorsExporter(),
    "torchscript": lambda _: TorchScriptExporter(),
    "onnx": lambda config: OnnxExporter(config.opset, config.preprocessing),
    "onnx-static": lambda _: StaticOnnxExporter(),
    "onnx-int8": lambda config: Int8OnnxExporter(config.int8),
    "onnx-fp16": lambda _: HalfOnnxExporter(),
    "ort": lambda _: OrtExporter(),
    "pt2": lambda _: Pt2Exporter(),
    "openvino": lambda _: OpenVinoExporter(),
    "executorch": lambda _: ExecuTorchExporter(),
}


def exporter_for(format_name: str, config: ExportConfig) -> Exporter:
    """Return the exporter of a format, set up as the recipe says.

    Raises:
        ExportError: there is no such format, or its package cannot be imported.
    """
    if format_name in _BUILTIN:
        return _BUILTIN[format_name](config)
    found = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == format_name]
    if not found or format_name in BUILTIN_FORMATS:
        raise ExportError(f"no format '{format_name}'; there are {', '.join(format_names())}")
    if len(found) > 1:
        packages = ", ".join(entry.dist.name for entry in found if entry.dist)
        raise ExportError(f"format '{format_name}' is announced by several packages: {packages}")
    try:
        exporter: Exporter = found[0].load()(config)
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"the plug-in of format '{format_name}', {found[0].value}, fails: {error}") from error
    missing = [name for name in vars(Exporter) if not name.startswith("_") and not hasattr(exporter, name)]
    if missing:
        raise ExportError(f"the plug-in of format '{format_name}', {found[0].value}, lacks {', '.join(missing)}")
    if exporter.format != format_name:
        raise ExportError(f"the plug-in {found[0].value} calls its format '{exporter.format}', not '{format_name}'")
    return exporter
