"""Which formats there are: those of this package, and those that other packages announce.

A format's module is imported when the format is asked for, so that who reads an ONNX file loads nothing of the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.contract import Exporter
from ecd_deploy.recipe.export import BUILTIN_FORMATS, ENTRY_POINT_GROUP, EXTRA_FORMATS, ExportConfig, format_names


@dataclass(frozen=True)
class _Home:
    """The module of a format, its class, and what that is called with."""

    module: str
    name: str
    arguments: Callable[[ExportConfig], tuple[object, ...]] = lambda _: ()

    def make(self, config: ExportConfig) -> Exporter:
        exporter: Exporter = getattr(import_module(self.module), self.name)(*self.arguments(config))
        return exporter


_BUILTIN = {
    "safetensors": _Home("ecd_deploy.exporters.pytorch.safetensors_file", "SafetensorsExporter"),
    "torchscript": _Home("ecd_deploy.exporters.pytorch.torchscript", "TorchScriptExporter"),
    "onnx": _Home(
        "ecd_deploy.exporters.onnx.fp32", "OnnxExporter", lambda config: (config.opset, config.preprocessing)
    ),
    "onnx-static": _Home("ecd_deploy.exporters.onnx.static", "StaticOnnxExporter"),
    "onnx-int8": _Home("ecd_deploy.exporters.onnx.int8", "Int8OnnxExporter", lambda config: (config.int8,)),
    "onnx-fp16": _Home("ecd_deploy.exporters.onnx.fp16", "HalfOnnxExporter"),
    "ort": _Home("ecd_deploy.exporters.ort.exporter", "OrtExporter"),
    "pt2": _Home("ecd_deploy.exporters.pytorch.pt2", "Pt2Exporter"),
    "openvino": _Home("ecd_deploy.exporters.openvino.exporter", "OpenVinoExporter"),
    "executorch": _Home("ecd_deploy.exporters.executorch.exporter", "ExecuTorchExporter"),
    "litert": _Home("ecd_deploy.exporters.litert.exporter", "LiteRtExporter"),
    "litert-int8": _Home("ecd_deploy.exporters.litert.int8", "Int8LiteRtExporter", lambda config: (config.int8,)),
    "ncnn": _Home("ecd_deploy.exporters.ncnn.exporter", "NcnnExporter"),
    "coreml": _Home("ecd_deploy.exporters.coreml.exporter", "CoreMlExporter"),
}


def writable_formats() -> tuple[str, ...]:
    """The built-in formats that can be written here: their extra is installed, and LiteRT's converter is named."""
    from ecd_deploy.exporters.litert.converter import CONVERTER_PYTHON

    def writable(name: str) -> bool:
        tools = not name.startswith("litert") or CONVERTER_PYTHON in os.environ
        return tools and (name not in EXTRA_FORMATS or find_spec(EXTRA_FORMATS[name]) is not None)

    return tuple(filter(writable, BUILTIN_FORMATS))


def exporter_for(format_name: str, config: ExportConfig) -> Exporter:
    """Return the exporter of a format, set up as the recipe says.

    Raises:
        ExportError: there is no such format, or its package cannot be imported.
    """
    if format_name in _BUILTIN:
        return _BUILTIN[format_name].make(config)
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
