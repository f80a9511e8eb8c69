from __future__ import annotations

import sys

import pytest
import torch

from ecd_deploy.errors import StudentError
from ecd_deploy.models import build_student


@pytest.mark.needs("timm")
def test_timm_student_has_the_wanted_classes_and_channels() -> None:
    network = build_student("timm:test_resnet", num_classes=7, in_channels=2)
    assert network(torch.randn(3, 2, 32, 32)).shape == (3, 7)


@pytest.mark.needs("timm")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18.no_such_tag", r"cannot be made for 4 classes .*no_such_tag"),
        ("mobilenetv3_smal_050", r"no model 'mobilenetv3_smal_050'; the most similar are mobilenetv3_small_050"),
        ("", r"no model ''; timm.list_models\(\) lists all"),
        ("no.thing", r"no model 'no.thing'"),
        ("hf-hub:timm/resnet18", r"no model 'hf-hub:timm/resnet18'"),
    ],
)
def test_timm_names_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(StudentError, match=message):
        build_student(f"timm:{name}", num_classes=4)


@pytest.mark.needs("timm")
def test_a_timm_model_that_fails_says_for_what() -> None:
    with pytest.raises(StudentError, match=r"'timm:test_resnet' cannot be made for 4 classes and 1000000000 channels"):
        build_student("timm:test_resnet", num_classes=4, in_channels=10**9)


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(StudentError, match=r"needs timm, .*pip install 'ecd-deploy\[timm\]'"):
        build_student("timm:resnet18", num_classes=4)
