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
    from ecd_deploy.core import gate, profile
    from ecd_deploy.distill import DynamicConv2d, ECDModel, TeacherOptions, TrainingOutputs, build_teacher
    from ecd_deploy.models import build_student
    from ecd_deploy.pipelines.evaluate.evaluate import Evaluated, evaluate
    from ecd_deploy.pipelines.evaluate.predict import Prediction, predict
    from ecd_deploy.recipe.input import InputConfig
    from ecd_deploy.split import SplitStudent, split_student

    __version__: str

__all__ = [
    "DynamicConv2d",
    "ECDModel",
    "Evaluated",
    "InputConfig",
    "Prediction",
    "SplitStudent",
    "TeacherOptions",
    "TrainingOutputs",
    "__version__",
    "build_student",
    "build_teacher",
    "evaluate",
    "gate",
    "predict",
    "profile",
    "split_student",
]

_HOMES = {
    "DynamicConv2d": "ecd_deploy.distill",
    "ECDModel": "ecd_deploy.distill",
    "Evaluated": "ecd_deploy.pipelines.evaluate.evaluate",
    "InputConfig": "ecd_deploy.recipe.input",
    "Prediction": "ecd_deploy.pipelines.evaluate.predict",
    "SplitStudent": "ecd_deploy.split",
    "TeacherOptions": "ecd_deploy.distill",
    "TrainingOutputs": "ecd_deploy.distill",
    "build_student": "ecd_deploy.models",
    "build_teacher": "ecd_deploy.distill",
    "evaluate": "ecd_deploy.pipelines.evaluate.evaluate",
    "gate": "ecd_deploy.core",
    "predict": "ecd_deploy.pipelines.evaluate.predict",
    "profile": "ecd_deploy.core",
    "split_student": "ecd_deploy.split",
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
