"""Explicit Connection Distillation: from training to a validated, deployable student.

The public names below are imported when they are first asked for, so that `import ecd_deploy`
is quick and needs no torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

# onnxruntime reads this once, when it is imported; else it keeps a device id and a database in the user's home, and
# starts threads and connections of its own. Child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from ecd_deploy.core import export, gate, profile, rehearse, report, run, split_run, train, validate
    from ecd_deploy.distill import DynamicConv2d, ECDModel, TeacherOptions, TrainingOutputs, build_teacher
    from ecd_deploy.models import build_student
    from ecd_deploy.pipelines.evaluate.evaluate import Evaluated, evaluate
    from ecd_deploy.pipelines.evaluate.predict import Prediction, predict
    from ecd_deploy.pipelines.gate.decide import GateReport
    from ecd_deploy.pipelines.record.artefacts import ArtefactList
    from ecd_deploy.pipelines.record.profile import Profile
    from ecd_deploy.pipelines.record.progress import Event, Rehearsed, StepEnded, StepStarted
    from ecd_deploy.pipelines.record.validation import Validation
    from ecd_deploy.pipelines.rehearse.result import Rehearsal
    from ecd_deploy.pipelines.report.results import RunResults
    from ecd_deploy.recipe.augment import AugmentConfig
    from ecd_deploy.recipe.data import DataConfig
    from ecd_deploy.recipe.export import ExportConfig
    from ecd_deploy.recipe.gate import GateConfig
    from ecd_deploy.recipe.input import InputConfig
    from ecd_deploy.recipe.method import MethodConfig
    from ecd_deploy.recipe.profile import ProfileConfig
    from ecd_deploy.recipe.recipe import Recipe, load_recipe
    from ecd_deploy.recipe.student import StudentConfig
    from ecd_deploy.recipe.train import TrainConfig
    from ecd_deploy.split import SplitProof, SplitStudent, split_student
    from ecd_deploy.training import TrainingResult
    from ecd_deploy.training.progress import BatchEnded, EpochEnded, StoppedEarly, TrainingStarted

    __version__: str

__all__ = [
    "ArtefactList",
    "AugmentConfig",
    "BatchEnded",
    "DataConfig",
    "DynamicConv2d",
    "ECDModel",
    "EpochEnded",
    "Evaluated",
    "Event",
    "ExportConfig",
    "GateConfig",
    "GateReport",
    "InputConfig",
    "MethodConfig",
    "Prediction",
    "Profile",
    "ProfileConfig",
    "Recipe",
    "Rehearsal",
    "Rehearsed",
    "RunResults",
    "SplitProof",
    "SplitStudent",
    "StepEnded",
    "StepStarted",
    "StoppedEarly",
    "StudentConfig",
    "TeacherOptions",
    "TrainConfig",
    "TrainingOutputs",
    "TrainingResult",
    "TrainingStarted",
    "Validation",
    "__version__",
    "build_student",
    "build_teacher",
    "evaluate",
    "export",
    "gate",
    "load_recipe",
    "predict",
    "profile",
    "rehearse",
    "report",
    "run",
    "split_run",
    "split_student",
    "train",
    "validate",
]

_HOMES = {
    "ArtefactList": "ecd_deploy.pipelines.record.artefacts",
    "AugmentConfig": "ecd_deploy.recipe.augment",
    "BatchEnded": "ecd_deploy.training.progress",
    "DataConfig": "ecd_deploy.recipe.data",
    "DynamicConv2d": "ecd_deploy.distill",
    "ECDModel": "ecd_deploy.distill",
    "EpochEnded": "ecd_deploy.training.progress",
    "Evaluated": "ecd_deploy.pipelines.evaluate.evaluate",
    "Event": "ecd_deploy.pipelines.record.progress",
    "ExportConfig": "ecd_deploy.recipe.export",
    "GateConfig": "ecd_deploy.recipe.gate",
    "GateReport": "ecd_deploy.pipelines.gate.decide",
    "InputConfig": "ecd_deploy.recipe.input",
    "MethodConfig": "ecd_deploy.recipe.method",
    "Prediction": "ecd_deploy.pipelines.evaluate.predict",
    "Profile": "ecd_deploy.pipelines.record.profile",
    "ProfileConfig": "ecd_deploy.recipe.profile",
    "Recipe": "ecd_deploy.recipe.recipe",
    "Rehearsal": "ecd_deploy.pipelines.rehearse.result",
    "Rehearsed": "ecd_deploy.pipelines.record.progress",
    "RunResults": "ecd_deploy.pipelines.report.results",
    "SplitProof": "ecd_deploy.split",
    "SplitStudent": "ecd_deploy.split",
    "StepEnded": "ecd_deploy.pipelines.record.progress",
    "StepStarted": "ecd_deploy.pipelines.record.progress",
    "StoppedEarly": "ecd_deploy.training.progress",
    "StudentConfig": "ecd_deploy.recipe.student",
    "TeacherOptions": "ecd_deploy.distill",
    "TrainConfig": "ecd_deploy.recipe.train",
    "TrainingOutputs": "ecd_deploy.distill",
    "TrainingResult": "ecd_deploy.training",
    "TrainingStarted": "ecd_deploy.training.progress",
    "Validation": "ecd_deploy.pipelines.record.validation",
    "build_student": "ecd_deploy.models",
    "build_teacher": "ecd_deploy.distill",
    "evaluate": "ecd_deploy.pipelines.evaluate.evaluate",
    "export": "ecd_deploy.core",
    "gate": "ecd_deploy.core",
    "load_recipe": "ecd_deploy.recipe.recipe",
    "predict": "ecd_deploy.pipelines.evaluate.predict",
    "profile": "ecd_deploy.core",
    "rehearse": "ecd_deploy.core",
    "report": "ecd_deploy.core",
    "run": "ecd_deploy.core",
    "split_run": "ecd_deploy.core",
    "split_student": "ecd_deploy.split",
    "train": "ecd_deploy.core",
    "validate": "ecd_deploy.core",
}


if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value: object = import_module("importlib.metadata").version("ecd-deploy")
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
