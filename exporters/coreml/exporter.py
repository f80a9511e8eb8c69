"""Core ML's `.mlpackage`, for Apple's systems: the extra `[coreml]`.

A package is a folder. It is kept as one artefact, a zip that is not compressed: `unzip` gives `student.mlpackage`.
Core ML runs on Apple's systems alone, so nothing here has seen it run the file: the graph is evaluated by PyTorch.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.coreml.contents import read_coreml
from ecd_deploy.exporters.coreml.layout import GRAPH, MANIFEST, WEIGHTS, read_model
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.pytorch.torchscript import TorchScriptExporter
from ecd_deploy.exporters.reason import first_cause
from ecd_deploy.exporters.runtimes import missing_extra
from ecd_deploy.exporters.source_file import source_file
from ecd_deploy.files import stored_zip
from ecd_deploy.measure.predictors.prediction import Predictor
from ecd_deploy.quiet import library_quiet

_AUTHOR = "com.apple.CoreML"


class CoreMlExporter:
    """Writes the TorchScript student as coremltools converts it, in float32 and for one image at a time."""

    format = "coreml"
    filename = "student.mlpackage.zip"
    runtime: Final = "other"
    budget = None
    derived_from = "torchscript"

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        source = source_file(given, self.format, self.derived_from, TorchScriptExporter().read_metadata)
        described = source.metadata.model_copy(update={"batch": 1})
        data = _converted(source.data, described)
        return checked(data, self._predictor, described, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Make its graph ready for PyTorch, not for Core ML; see `Exporter`."""
        return self._predictor(data)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata, without coremltools; see `Exporter`."""
        return parse_metadata(read_model(data).texts.get(METADATA_KEY), self.format)

    def contents(self, data: bytes) -> Contents:
        """Read what the graph takes of the weights; see `Exporter`."""
        return read_coreml(data)

    def _predictor(self, data: bytes) -> Predictor:
        from ecd_deploy.exporters.coreml.evaluate import coreml_predictor

        return coreml_predictor(read_model(data))


def _converted(program: bytes, metadata: ArtefactMetadata) -> bytes:
    import torch

    with library_quiet(), tempfile.TemporaryDirectory() as folder:
        try:
            import coremltools
        except ImportError as error:
            raise missing_extra("coreml", error) from error
        given, package = Path(folder, "student.pt"), Path(folder, "student.mlpackage")
        given.write_bytes(program)
        try:
            converted = coremltools.convert(
                torch.jit.load(given),  # type: ignore[no-untyped-call]
                inputs=[coremltools.TensorType(name=INPUT_NAME, shape=(1, *metadata.input_shape))],
                outputs=[coremltools.TensorType(name=OUTPUT_NAME)],
                convert_to="mlprogram",
                compute_precision=coremltools.precision.FLOAT32,
                skip_model_load=True,
            )
            converted.save(str(package))
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"coremltools cannot convert the student: {first_cause(error)}") from error
        described = converted.get_spec()
        texts = described.description.metadata.userDefined
        texts.clear()  # the day of the conversion among them
        texts[METADATA_KEY] = metadata.model_dump_json()
        weights = Path(folder, WEIGHTS).read_bytes()
    return stored_zip({MANIFEST: _manifest(), GRAPH: described.SerializeToString(deterministic=True), WEIGHTS: weights})


def _manifest() -> bytes:
    """The package's list of files, whose keys are random where coremltools writes it."""
    items = {"model.mlmodel": "CoreML Model Specification", "weights": "CoreML Model Weights"}
    entries = {
        str(uuid5(NAMESPACE_URL, name)): {
            "author": _AUTHOR,
            "description": description,
            "name": name,
            "path": f"{_AUTHOR}/{name}",
        }
        for name, description in items.items()
    }
    document = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": next(iter(entries))}
    return json.dumps(document, indent=4).encode()
