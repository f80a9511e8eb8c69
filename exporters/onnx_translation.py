"""A student as an ONNX model; translated once, for all the formats that are made from it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import onnx
import torch
from torch import nn

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.metadata import INPUT_NAME, OUTPUT_NAME
from ecd_deploy.exporters.onnx_graph import check_opset, strip_provenance
from ecd_deploy.split import SplitStudent, state_digest

# A translation takes seconds, and five formats start from it. By module, then by its tensors and the opset.
_translations: WeakKeyDictionary[nn.Module, dict[tuple[str, int], bytes]] = WeakKeyDictionary()


def translate(student: SplitStudent, opset: int) -> onnx.ModelProto:
    """Translate the student, for any batch size and without what betrays this machine.

    Raises:
        ExportError: ONNX cannot express the student, or another opset was written.
    """
    known = _translations.setdefault(student.module, {})
    key = (state_digest(student.module), opset)
    if key not in known:
        model = _translated(student.module, student.example_shape, opset)
        check_opset(model, opset)
        strip_provenance(model)
        known[key] = model.SerializeToString(deterministic=True)
    return onnx.load_model_from_string(known[key])


def _translated(module: nn.Module, image_shape: tuple[int, int, int], opset: int) -> onnx.ModelProto:
    try:
        with library_quiet("torch.onnx"):
            program = torch.onnx.export(
                module,
                (torch.zeros(2, *image_shape),),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"ONNX cannot express the student: {error}") from error
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    return program.model_proto


@contextmanager
def library_quiet(logger_name: str) -> Iterator[None]:
    """Keep a library's warnings and log lines in here: what they warn of is asserted from what it wrote."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
