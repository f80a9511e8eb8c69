"""A PyTorch module as a predictor: what every artefact is compared with, and how PyTorch's own formats are run."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecd_deploy.measure.prediction import Predictor


def torch_predictor(module: nn.Module) -> Predictor:
    """Run a module, in evaluation mode and without gradients, as a predictor.

    The module's mode is set here: a batch norm that is still training would make every comparison void.
    """
    module.eval()

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: Tensor = module(torch.from_numpy(images))
        return logits.float().numpy()

    return predict
