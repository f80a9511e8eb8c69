"""From a recipe's method to the model that is trained, and to what it minimises."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecd_deploy.baselines.branches import BranchedModel
from ecd_deploy.baselines.distillation import DistilledModel, TrainedTeacher
from ecd_deploy.data import DataSplits, logit_offsets, loss_weights
from ecd_deploy.distill.convolution.dynamic_conv import TeacherOptions
from ecd_deploy.distill.model import ECDModel, JointModel, PlainModel, TrainingModel
from ecd_deploy.distill.objective import Objective, build_objective
from ecd_deploy.distill.sites import compared_sites
from ecd_deploy.distill.teacher import build_teacher
from ecd_deploy.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from ecd_deploy.recipe.method import MethodConfig
    from ecd_deploy.recipe.recipe import Recipe


def build_training_model(
    config: MethodConfig,
    student: nn.Module,
    *,
    example: Tensor | None = None,
    trained: TrainedTeacher | None = None,
) -> TrainingModel:
    """Make the model that a recipe asks for; its objective is `training_objective`'s.

    Args:
        config: the recipe's method.
        student: any network of images (N, C, H, W) -> logits (N, classes).
        example: images (N, C, H, W) to find the student's structure with.
        trained: the teacher that `config.pretrained` speaks of.

    Raises:
        StudentError: the student cannot be treated, or has no such stage.
        UsageError: an extra is not installed, or what `config.pretrained` needs was not given.
    """
    if config.name == "one":
        return BranchedModel(student, config.used_branches, example)
    joint = _joint_model(config, student, example)
    if config.pretrained is None:
        return joint
    if trained is None or example is None:
        raise UsageError("method.pretrained needs the trained teacher and example images")
    return DistilledModel(joint, trained, config.pretrained, example)


def training_objective(recipe: Recipe, data: DataSplits, device: torch.device) -> Objective:
    """Make the objective of a training on these images.

    Raises:
        RecipeError: its classes, or the numbers of their images, are not those that the recipe needs.
    """

    def on_device(values: NDArray[np.float64] | None) -> Tensor | None:
        # once: a copy in each step would make the host wait, and could not be part of a CUDA graph
        return None if values is None else torch.from_numpy(values).to(device, torch.float32)

    return build_objective(
        recipe.method,
        label_smoothing=recipe.train.label_smoothing,
        class_weights=on_device(loss_weights(recipe.train, data)),
        logit_offsets=on_device(logit_offsets(recipe.train, data)),
    )


def _joint_model(config: MethodConfig, student: nn.Module, example: Tensor | None) -> JointModel | PlainModel:
    if config.name in ("plain", "distil"):
        return PlainModel(student)
    # an option has the recipe's name, so that a new one is added there and where it is used
    options = TeacherOptions(**{option.name: getattr(config, option.name) for option in fields(TeacherOptions)})
    if config.name == "joint":
        generated = build_teacher(student, options, example=example)
        compared = compared_sites(generated.report, config.features, config.stages)
        return JointModel(student, generated, ensemble=config.logits == "ensemble", compared=compared)
    return ECDModel(
        student,
        options,
        connection=config.connection,
        stages=config.stages,
        sites=config.sites,
        density=config.density,
        ensemble=config.logits == "ensemble",
        features=config.features,
        example=example,
    )
