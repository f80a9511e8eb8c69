"""Explicit Connection Distillation: the generated teacher, the connections and the merged model."""

from __future__ import annotations

from ecd_deploy.distill.connections import FeatureConnections
from ecd_deploy.distill.convolution.attention import AttentionConv2d
from ecd_deploy.distill.convolution.dynamic_conv import DynamicConv2d, TeacherOptions
from ecd_deploy.distill.dense import DenseConnections
from ecd_deploy.distill.ensemble import HeadEnsemble
from ecd_deploy.distill.losses import training_loss
from ecd_deploy.distill.model import ECDModel, JointModel, PlainModel, TrainingModel
from ecd_deploy.distill.objective import LossTerm, LossTerms, Objective, TermName, build_objective
from ecd_deploy.distill.outputs import FeaturePair, HeadName, TrainingOutputs
from ecd_deploy.distill.sites import ConnectionSite, connection_sites
from ecd_deploy.distill.student.structure import Block, Stage, StudentStructure, find_structure
from ecd_deploy.distill.teacher import (
    GeneratedTeacher,
    ReplacedConvolution,
    SkippedConvolution,
    TeacherReport,
    build_teacher,
)

__all__ = [
    "AttentionConv2d",
    "Block",
    "ConnectionSite",
    "DenseConnections",
    "DynamicConv2d",
    "ECDModel",
    "FeatureConnections",
    "FeaturePair",
    "GeneratedTeacher",
    "HeadEnsemble",
    "HeadName",
    "JointModel",
    "LossTerm",
    "LossTerms",
    "Objective",
    "PlainModel",
    "ReplacedConvolution",
    "SkippedConvolution",
    "Stage",
    "StudentStructure",
    "TeacherOptions",
    "TeacherReport",
    "TermName",
    "TrainingModel",
    "TrainingOutputs",
    "build_objective",
    "build_teacher",
    "connection_sites",
    "find_structure",
    "training_loss",
]
