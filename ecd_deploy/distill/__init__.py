"""Explicit Connection Distillation: the generated teacher, the connections and the merged model."""

from __future__ import annotations

from ecd_deploy.distill.connections import ConnectionSite, FeatureConnections, connection_sites
from ecd_deploy.distill.dynamic_conv import DynamicConv2d
from ecd_deploy.distill.losses import training_loss
from ecd_deploy.distill.model import ECDModel, PlainModel, TrainingModel, build_training_model
from ecd_deploy.distill.structure import Block, Stage, StudentStructure, find_structure
from ecd_deploy.distill.teacher import (
    GeneratedTeacher,
    ReplacedConvolution,
    SkippedConvolution,
    TeacherReport,
    build_teacher,
)

__all__ = [
    "Block",
    "ConnectionSite",
    "DynamicConv2d",
    "ECDModel",
    "FeatureConnections",
    "GeneratedTeacher",
    "PlainModel",
    "ReplacedConvolution",
    "SkippedConvolution",
    "Stage",
    "StudentStructure",
    "TeacherReport",
    "TrainingModel",
    "build_teacher",
    "build_training_model",
    "connection_sites",
    "find_structure",
    "training_loss",
]
