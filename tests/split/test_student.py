from __future__ import annotations

import copy
import json

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import ArtefactError, DigestError, SplitError
from ecd_deploy.models import build_student
from ecd_deploy.split import (
    SplitProof,
    SplitStudent,
    load_student,
    split_student,
    state_digest,
    student_bytes,
)
from tests.split.models import make_joint


def fresh() -> nn.Module:
    return build_student("resnet8", num_classes=10, in_channels=1)


@pytest.fixture(scope="module")
def proved(images: Tensor) -> SplitStudent:
    return split_student(make_joint(images), images)


@pytest.fixture
def split(proved: SplitStudent) -> SplitStudent:
    """A split student that a test may break."""
    return copy.deepcopy(proved)


def test_a_proof_of_other_tensors_is_refused(split: SplitStudent) -> None:
    other = fresh().eval().requires_grad_(False)
    with pytest.raises(DigestError, match="is not the tensor that was proved"):
        SplitStudent(other, split.proof)


def test_one_changed_bit_is_noticed(split: SplitStudent) -> None:
    weight = next(split.module.parameters())
    weight.view(torch.int32)[0, 0, 0, 0] ^= 1
    name = next(name for name, _ in split.module.named_parameters())
    with pytest.raises(DigestError, match=f"the student's {name} is not the tensor"):
        SplitStudent(split.module, split.proof)


def test_a_tensor_more_or_less_is_noticed(split: SplitStudent) -> None:
    split.module.hidden = [torch.zeros(1)]  # type: ignore[assignment]
    with pytest.raises(DigestError, match=r"has hidden\[0\], which its proof does not list"):
        SplitStudent(split.module, split.proof)
    del split.module.hidden
    name = next(name for name, _ in split.module.named_children())
    setattr(split.module, name, nn.Identity().eval())
    with pytest.raises(DigestError, match=f"the student lacks {name}"):
        SplitStudent(split.module, split.proof)


def test_a_proof_that_did_not_pass_is_refused(split: SplitStudent) -> None:
    with pytest.raises(SplitError, match="did not pass: passed is false"):
        SplitStudent(split.module, split.proof.model_copy(update={"passed": False}))
    hooks = split.proof.checks.hooks.model_copy(update={"passed": False, "findings": ("a hook",)})
    checks = split.proof.checks.model_copy(update={"hooks": hooks})
    with pytest.raises(SplitError, match="did not pass: hooks"):
        SplitStudent(split.module, split.proof.model_copy(update={"checks": checks}))


def test_a_module_that_can_still_change_is_refused(split: SplitStudent) -> None:
    next(split.module.children()).train()
    with pytest.raises(SplitError, match="is in train mode"):
        SplitStudent(split.module, split.proof)
    split.module.eval().requires_grad_(True)
    with pytest.raises(SplitError, match="requires a gradient"):
        SplitStudent(split.module, split.proof)


def test_a_proof_that_contradicts_itself_is_not_read(split: SplitStudent) -> None:
    document = json.loads(split.proof.model_dump_json())
    document["student_tensors"][0]["sha256"] = "0" * 64
    with pytest.raises(ValidationError, match="the tensors listed give"):
        SplitProof.model_validate_json(json.dumps(document))
    document = json.loads(split.proof.model_dump_json())
    document["checks"]["storage"]["findings"] = ["student.a shares storage with teacher.b"]
    with pytest.raises(ValidationError, match="passed is True with 1 findings"):
        SplitProof.model_validate_json(json.dumps(document))


def test_a_forged_digest_in_a_copied_proof_is_refused(split: SplitStudent) -> None:
    with pytest.raises(SplitError, match="contradicts itself"):
        SplitStudent(split.module, split.proof.model_copy(update={"student_digest": "0" * 64}))


def test_what_was_saved_is_loaded_into_a_fresh_student(split: SplitStudent, images: Tensor) -> None:
    loaded = load_student(student_bytes(split), fresh(), SplitProof.model_validate_json(split.proof.to_json()))
    assert loaded.proof == split.proof
    assert state_digest(loaded.module) == split.proof.student_digest
    with torch.no_grad():
        assert torch.equal(loaded.module(images), split.module(images))


def test_any_changed_weight_is_noticed_on_loading(split: SplitStudent) -> None:
    data = bytearray(student_bytes(split))
    data[-1] ^= 1
    with pytest.raises(DigestError, match="is not the tensor that was proved"):
        load_student(bytes(data), fresh(), split.proof)


def test_bytes_of_something_else_are_refused(split: SplitStudent) -> None:
    with pytest.raises(ArtefactError, match="no safetensors file"):
        load_student(b"not tensors at all", fresh(), split.proof)
    with pytest.raises(ArtefactError, match="does not fit"):
        load_student(student_bytes(split), build_student("resnet8", num_classes=7, in_channels=1), split.proof)


def test_tied_parameters_survive_the_way_through_bytes(images: Tensor) -> None:
    tied = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    tied[3].weight = tied[1].weight
    split = split_student(PlainModel(tied), images)
    again = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    again[3].weight = again[1].weight
    assert load_student(student_bytes(split), again, split.proof).proof == split.proof


def test_the_digest_depends_on_names_types_and_bits() -> None:
    def digest(name: str, tensor: Tensor) -> str:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return state_digest(module)

    zero = torch.zeros(2)
    digests = {
        digest("a", zero),
        digest("b", zero),
        digest("a", -zero),
        digest("a", zero.int()),
        digest("a", zero.reshape(2, 1)),
        digest("a", zero.bfloat16()),
    }
    assert len(digests) == 6
    assert digest("a", torch.arange(6.0).reshape(2, 3).t()) == digest("a", torch.arange(6.0).reshape(2, 3).t().clone())
