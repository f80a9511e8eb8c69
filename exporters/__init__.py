"""Writes split students in the formats that devices run, and opens them again."""

from __future__ import annotations

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
