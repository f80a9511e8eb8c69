"""Students of torchvision and timm: with fresh weights, for which nothing is downloaded, and their pretrained ones."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ecd_deploy.errors import StudentError, did_you_mean, reraise_machine_fault

if TYPE_CHECKING:
    from torch import nn

# These give a tuple of logits in training mode unless their auxiliary heads are left out.
WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
_MATCHES_SHOWN = 5


def torchvision_student(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a classifier of torchvision.

    Raises:
        StudentError: there is no such classifier, or the images are not RGB.
    """
    from torchvision import models

    choices = tuple(models.list_models(module=models))
    if name not in choices:
        raise StudentError(
            f"torchvision has no classifier '{name}'{did_you_mean(name, choices)}; choices are {', '.join(choices)}"
        )
    if in_channels != 3:
        raise StudentError(
            f"student 'torchvision:{name}' takes images of 3 channels, the data has {in_channels}; "
            "use a built-in student, one of timm or a factory of your own"
        )
    options = {"aux_logits": False, "init_weights": True} if name in WITH_AUXILIARY_HEADS else {}
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return network


def timm_student(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a classifier of timm.

    Raises:
        StudentError: timm is not installed, has no such model, or cannot make it for these images.
    """
    try:
        import timm
    except ImportError as error:
        raise StudentError(
            f"student 'timm:{name}' needs timm, which cannot be imported ({error}); "
            "install it with pip install 'ecd-deploy[timm]'"
        ) from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=_MATCHES_SHOWN)
        hint = f"the most similar are {', '.join(close)}; " if close else ""
        raise StudentError(f"timm has no model '{name}'; {hint}timm.list_models() lists all")
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    except Exception as error:
        reraise_machine_fault(error)
        raise StudentError(
            f"student 'timm:{name}' cannot be made for {num_classes} classes and {in_channels} channels: "
            f"{type(error).__name__}: {error}"
        ) from error
    return network
