"""Writes split students in the formats that devices run, opens them again, and reads what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

if TYPE_CHECKING:
    from ecd_deploy.exporters.budget import ParityBudget
    from ecd_deploy.exporters.context import ExportContext
    from ecd_deploy.exporters.contract import Exporter, ExportInput, StudentBuilder
    from ecd_deploy.exporters.derivation import Written, export_formats
    from ecd_deploy.exporters.files.contents import Contents, FileTensor
    from ecd_deploy.exporters.files.metadata import ArtefactMetadata, Quantisation
    from ecd_deploy.exporters.files.paths import refuse_local_paths
    from ecd_deploy.exporters.onnx.fp32 import OnnxExporter
    from ecd_deploy.exporters.pytorch.safetensors_file import SafetensorsExporter
    from ecd_deploy.exporters.registry import exporter_for
    from ecd_deploy.measure.predictors.prediction import Predictor

__all__ = [
    "ArtefactMetadata",
    "Contents",
    "ExportContext",
    "ExportInput",
    "Exporter",
    "FileTensor",
    "OnnxExporter",
    "ParityBudget",
    "Predictor",
    "Quantisation",
    "SafetensorsExporter",
    "StudentBuilder",
    "Written",
    "export_formats",
    "exporter_for",
    "refuse_local_paths",
]

_HOMES = {
    "ArtefactMetadata": "ecd_deploy.exporters.files.metadata",
    "Contents": "ecd_deploy.exporters.files.contents",
    "ExportContext": "ecd_deploy.exporters.context",
    "ExportInput": "ecd_deploy.exporters.contract",
    "Exporter": "ecd_deploy.exporters.contract",
    "FileTensor": "ecd_deploy.exporters.files.contents",
    "OnnxExporter": "ecd_deploy.exporters.onnx.fp32",
    "ParityBudget": "ecd_deploy.exporters.budget",
    "Predictor": "ecd_deploy.measure.predictors.prediction",
    "Quantisation": "ecd_deploy.exporters.files.metadata",
    "SafetensorsExporter": "ecd_deploy.exporters.pytorch.safetensors_file",
    "StudentBuilder": "ecd_deploy.exporters.contract",
    "Written": "ecd_deploy.exporters.derivation",
    "export_formats": "ecd_deploy.exporters.derivation",
    "exporter_for": "ecd_deploy.exporters.registry",
    "refuse_local_paths": "ecd_deploy.exporters.files.paths",
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
