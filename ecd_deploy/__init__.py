"""Explicit Connection Distillation: from training to a validated, deployable student.

The public names below are imported when they are first asked for, so that `import ecd_deploy`
is quick and needs no torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

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
    "ecd_deploy.core": ["export", "gate", "profile", "rehearse", "report", "run", "split_run", "train", "validate"],
    "ecd_deploy.distill": ["DynamicConv2d", "ECDModel", "TeacherOptions", "TrainingOutputs", "build_teacher"],
    "ecd_deploy.models": ["build_student"],
    "ecd_deploy.pipelines.evaluate.evaluate": ["Evaluated", "evaluate"],
    "ecd_deploy.pipelines.evaluate.predict": ["Prediction", "predict"],
    "ecd_deploy.pipelines.gate.decide": ["GateReport"],
    "ecd_deploy.pipelines.record.artefacts": ["ArtefactList"],
    "ecd_deploy.pipelines.record.profile": ["Profile"],
    "ecd_deploy.pipelines.record.progress": ["Event", "Rehearsed", "StepEnded", "StepStarted"],
    "ecd_deploy.pipelines.record.validation": ["Validation"],
    "ecd_deploy.pipelines.rehearse.result": ["Rehearsal"],
    "ecd_deploy.pipelines.report.results": ["RunResults"],
    "ecd_deploy.recipe.augment": ["AugmentConfig"],
    "ecd_deploy.recipe.data": ["DataConfig"],
    "ecd_deploy.recipe.export": ["ExportConfig"],
    "ecd_deploy.recipe.gate": ["GateConfig"],
    "ecd_deploy.recipe.input": ["InputConfig"],
    "ecd_deploy.recipe.method": ["MethodConfig"],
    "ecd_deploy.recipe.profile": ["ProfileConfig"],
    "ecd_deploy.recipe.recipe": ["Recipe", "load_recipe"],
    "ecd_deploy.recipe.student": ["StudentConfig"],
    "ecd_deploy.recipe.train": ["TrainConfig"],
    "ecd_deploy.split": ["SplitProof", "SplitStudent", "split_student"],
    "ecd_deploy.training": ["TrainingResult"],
    "ecd_deploy.training.progress": ["BatchEnded", "EpochEnded", "StoppedEarly", "TrainingStarted"],
}


if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    _public = names_of(__name__, _HOMES)

    def __getattr__(name: str) -> object:
        return import_module("importlib.metadata").version("ecd-deploy") if name == "__version__" else _public(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
