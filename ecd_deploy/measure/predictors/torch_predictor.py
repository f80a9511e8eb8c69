"""A PyTorch module as a predictor: what every artefact is compared with, and how PyTorch's own formats are run."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecd_deploy.errors import reraise_machine_fault
from ecd_deploy.measure.predictors.prediction import Predictor

_SAME_LOGITS = 1e-3
"""Largest difference by the memory layout, as a share of the largest logit; float32 rounding leaves about 1e-6."""


def torch_predictor(module: nn.Module) -> Predictor:
    """Run a module, in evaluation mode and without gradients, as a predictor.

    The module's mode is set here: a batch norm that is still training would make every comparison void.
    """
    return _predictor(module, torch.contiguous_format)


def reference_predictor(module: nn.Module, images: NDArray[np.float32]) -> Predictor:
    """Run a module as `torch_predictor` does, or a copy of it in channels_last, in which a CPU convolves faster.

    Args:
        module: any network of images; it is left as it is, but for its mode.
        images: a few (N, C, H, W). The copy is taken if it gives the module's logits of these, up to rounding: a
            `view` of a feature fails in channels_last, and `as_strided` sees other values.
    """
    plain = torch_predictor(module)
    try:
        moved = copy.deepcopy(module).to(memory_format=torch.channels_last)
        faster = _predictor(moved, torch.channels_last)
        expected, found = plain(images), faster(images)
    except Exception as error:  # noqa: BLE001 (any fault of the copy means that the module runs as it is)
        reraise_machine_fault(error)
        return plain
    same = expected.shape == found.shape and np.abs(expected - found).max() <= _SAME_LOGITS * np.abs(expected).max()
    return faster if same else plain


def _predictor(module: nn.Module, layout: torch.memory_format) -> Predictor:
    module.eval()

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: Tensor = module(torch.from_numpy(images).contiguous(memory_format=layout))
        return logits.float().numpy()

    return predict
