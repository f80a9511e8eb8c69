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
    "ecd_deploy.exporters.budget": ["ParityBudget"],
    "ecd_deploy.exporters.context": ["ExportContext"],
    "ecd_deploy.exporters.contract": ["ExportInput", "Exporter", "StudentBuilder"],
    "ecd_deploy.exporters.derivation": ["Written", "export_formats"],
    "ecd_deploy.exporters.files.contents": ["Contents", "FileTensor"],
    "ecd_deploy.exporters.files.metadata": ["ArtefactMetadata", "Quantisation"],
    "ecd_deploy.exporters.files.paths": ["refuse_local_paths"],
    "ecd_deploy.exporters.onnx.fp32": ["OnnxExporter"],
    "ecd_deploy.exporters.pytorch.safetensors_file": ["SafetensorsExporter"],
    "ecd_deploy.exporters.registry": ["exporter_for"],
    "ecd_deploy.measure.predictors.prediction": ["Predictor"],
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
