from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ecd_deploy.errors import StudentError
from ecd_deploy.models import build_student, student_names
from tests.commands import STUDENTS

FACTORIES = """
import torch
from torch import nn

WIDTH = 3

class Factories:
    @staticmethod
    def small(*, num_classes, in_channels):
        features = nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(features, nn.Linear(4, num_classes))

small = Factories.small

def text(*, num_classes, in_channels):
    return "a network"

def broken(*, num_classes, in_channels):
    raise KeyError("weights")

def wordy(*, num_classes, in_channels):
    raise RuntimeError("no weights\\nat all\\n")

def positional(num_classes):
    return nn.Linear(1, num_classes)
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "users_own_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "students.py").write_text(FACTORIES)
    (folder / "faulty.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "users_own_package.students"


def test_torchvision_student_has_the_wanted_classes() -> None:
    network = build_student("torchvision:resnet18", num_classes=12)
    assert network.get_submodule("fc").get_parameter("weight").shape == (12, 512)


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_torchvision_student_has_one_head_in_training_mode() -> None:
    network = build_student("torchvision:googlenet", num_classes=5).train()
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_torchvision_refuses_other_channels() -> None:
    with pytest.raises(StudentError, match=r"takes images of 3 channels, the data has 1"):
        build_student("torchvision:resnet18", num_classes=10, in_channels=1)


@pytest.mark.parametrize("name", ["resnet19", "deeplabv3_resnet50", ""])
def test_torchvision_refuses_what_is_no_classifier(name: str) -> None:
    with pytest.raises(StudentError, match=r"no classifier .*choices are .*resnet18.*"):
        build_student(f"torchvision:{name}", num_classes=10)


def test_factory_is_called_with_classes_and_channels(factories: str) -> None:
    network = build_student(f"{factories}:small", num_classes=9, in_channels=2)
    assert network(torch.randn(3, 2, 8, 8)).shape == (3, 9)
    assert isinstance(build_student(f"{factories}:Factories.small", num_classes=9), nn.Module)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_own_package.absent:small", r"module 'users_own_package.absent' cannot be imported.*PYTHONPATH"),
        ("users_own_package.faulty:small", r"cannot be imported, ModuleNotFoundError: .*a_package_that_is_not"),
        (
            "users_own_package.students:smal",
            r"has no 'smal' \(did you mean 'small'\?\).*broken, positional, small, text, wordy",
        ),
        ("users_own_package.students:WIDTH", r"is of type int and cannot be called"),
        ("users_own_package.students:text", r"returned str, not a torch.nn.Module"),
        ("users_own_package.students:broken", r"num_classes=4, in_channels=3 failed with KeyError: 'weights'"),
        ("users_own_package.students:wordy", r"in_channels=3 failed with RuntimeError: no weights$"),
        ("users_own_package.students:positional", r"failed with TypeError.*in_channels"),
        ("users_own_package.students:", r"expected package.module:factory"),
        (":small", r"expected package.module:factory"),
        (".students:small", r"expected package.module:factory"),
    ],
)
def test_factory_errors_name_the_cause(factories: str, name: str, message: str) -> None:
    assert factories
    with pytest.raises(StudentError, match=message):
        build_student(name, num_classes=4)


def test_a_missing_dependency_is_not_taken_for_a_missing_module(factories: str) -> None:
    assert factories
    with pytest.raises(StudentError) as caught:
        build_student("users_own_package.faulty:small", num_classes=4)
    assert "PYTHONPATH" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet21", "resnet", "ResNet20", "wrn-16", "wrn-16-2x"])
def test_unknown_name_lists_the_choices(name: str) -> None:
    with pytest.raises(StudentError, match=r"no student .*resnet20.*resnet164.*wrn-D-K.*torchvision:NAME"):
        build_student(name, num_classes=10)


@pytest.mark.parametrize("name", ["wrn-17-2", "wrn-4-2", "wrn-16-0"])
def test_wide_resnet_of_no_such_depth_or_width(name: str) -> None:
    with pytest.raises(StudentError, match=r"6n \+ 4"):
        build_student(name, num_classes=10)


def test_classes_and_channels_are_checked() -> None:
    with pytest.raises(StudentError, match="num_classes must be at least 1, it is 0"):
        build_student("resnet8", num_classes=0)
    with pytest.raises(StudentError, match="in_channels must be at least 1, it is -1"):
        build_student("resnet8", num_classes=2, in_channels=-1)


def test_the_random_state_decides_the_weights() -> None:
    torch.manual_seed(3)
    first = build_student("resnet8", num_classes=10).state_dict()
    torch.manual_seed(3)
    second = build_student("resnet8", num_classes=10).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert "resnet8" in student_names()


@pytest.mark.parametrize("wrapped", ["compiled", "in_parallel", "block_compiled"])
def test_what_a_factory_compiles_or_makes_parallel_is_unwrapped(wrapped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(STUDENTS), *sys.path])
    plain = build_student("faulty:sound", num_classes=10, in_channels=1)
    student = build_student(f"faulty:{wrapped}", num_classes=10, in_channels=1)
    assert [(name, type(part)) for name, part in student.named_modules()] == [
        (name, type(part)) for name, part in plain.named_modules()
    ]
    assert student.state_dict().keys() == plain.state_dict().keys()


def test_a_factory_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net_beside.py").write_text(
        "from torch import nn\ndef build(num_classes, in_channels):\n    return nn.Linear(in_channels, num_classes)\n"
    )
    (tmp_path / "json.py").write_text("raise RuntimeError('a module of the user hides one of Python')\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with pytest.raises(StudentError, match=r"neither in the current folder, .*, nor on PYTHONPATH"):
        build_student("net_beside:build", num_classes=3)
    monkeypatch.chdir(tmp_path)
    assert isinstance(build_student("net_beside:build", num_classes=3), nn.Linear)
    assert sys.path[-1] == str(tmp_path)
    assert sys.path[0] != str(tmp_path)
