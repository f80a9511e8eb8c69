"""Writes split students in the formats that devices run, and opens them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

if TYPE_CHECKING:
    from ecd_deploy.exporters.context import ExportContext
    from ecd_deploy.exporters.contract import Exporter, ParityBudget, StudentBuilder
    from ecd_deploy.exporters.metadata import ArtefactMetadata, Quantisation
    from ecd_deploy.exporters.onnx_file import OnnxExporter
    from ecd_deploy.exporters.paths import refuse_local_paths
    from ecd_deploy.exporters.registry import exporter_for
    from ecd_deploy.exporters.safetensors_file import SafetensorsExporter
    from ecd_deploy.exporters.torchscript import TorchScriptExporter
    from ecd_deploy.measure.prediction import Predictor

__all__ = [
    "ArtefactMetadata",
    "ExportContext",
    "Exporter",
    "OnnxExporter",
    "ParityBudget",
    "Predictor",
    "Quantisation",
    "SafetensorsExporter",
    "StudentBuilder",
    "TorchScriptExporter",
    "exporter_for",
    "refuse_local_paths",
]

_HOMES = {
    "ArtefactMetadata": "ecd_deploy.exporters.metadata",
    "ExportContext": "ecd_deploy.exporters.context",
    "Exporter": "ecd_deploy.exporters.contract",
    "OnnxExporter": "ecd_deploy.exporters.onnx_file",
    "ParityBudget": "ecd_deploy.exporters.contract",
    "Predictor": "ecd_deploy.measure.prediction",
    "Quantisation": "ecd_deploy.exporters.metadata",
    "SafetensorsExporter": "ecd_deploy.exporters.safetensors_file",
    "StudentBuilder": "ecd_deploy.exporters.contract",
    "TorchScriptExporter": "ecd_deploy.exporters.torchscript",
    "exporter_for": "ecd_deploy.exporters.registry",
    "refuse_local_paths": "ecd_deploy.exporters.paths",
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
