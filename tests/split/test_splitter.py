from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill import ECDModel, PlainModel
from ecd_deploy.errors import SplitError
from ecd_deploy.split import SplitProof, split_student, state_digest


def test_the_split_student_is_a_plain_copy_with_the_same_logits(joint: ECDModel, images: Tensor) -> None:
    split = split_student(joint, images)
    with torch.no_grad():
        expected = joint.eval()(images).student
        assert torch.equal(split.module(images), expected)
    assert type(split.module) is type(joint.student)
    assert split.module.state_dict().keys() == joint.student.state_dict().keys()
    assert not any(module.training for module in split.module.modules())
    assert not any(parameter.requires_grad for parameter in split.module.parameters())
    originals = {parameter.data_ptr() for parameter in joint.parameters()}
    assert originals.isdisjoint(parameter.data_ptr() for parameter in split.module.parameters())


def test_the_proof_says_what_was_compared(joint: ECDModel, images: Tensor) -> None:
    proof = split_student(joint, images).proof
    trainable = [f"student.{name}" for name, _ in joint.student.named_parameters()]
    auxiliary = [*joint.teacher.parameters(), *joint.connections.parameters()]
    assert (proof.joint_model, proof.auxiliary, proof.passed) == ("ECDModel", ("teacher", "connections"), True)
    assert proof.example_shape == (1, 8, 8)
    assert proof.example_batch == 4
    assert proof.checks.dataflow.reached == tuple(sorted(trainable))
    assert proof.checks.dataflow.auxiliary_parameters == len(auxiliary)
    assert proof.checks.perturbation.poisoned_tensors >= len(auxiliary)
    assert proof.checks.perturbation.logits_compared == 6 * 4 * 10
    assert proof.parameters == sum(parameter.numel() for parameter in joint.student.parameters())
    assert proof.buffers == sum(buffer.numel() for buffer in joint.student.buffers())
    assert proof.student_digest == state_digest(joint.student)
    assert {record.name for record in proof.student_tensors} == set(joint.student.state_dict())
    assert SplitProof.model_validate_json(proof.model_dump_json()) == proof


def test_a_student_trained_alone_has_nothing_beside_it(plain: PlainModel, images: Tensor) -> None:
    proof = split_student(plain, images).proof
    assert (proof.joint_model, proof.auxiliary, proof.passed) == ("PlainModel", (), True)
    assert proof.checks.storage.auxiliary_tensors == 0
    assert proof.checks.perturbation.poisoned_tensors == 0
    assert len(proof.checks.dataflow.reached) == len(list(plain.student.parameters()))


def test_the_joint_model_is_left_as_it_was(joint: ECDModel, images: Tensor) -> None:
    sum(logits.sum() for logits in joint(images).heads().values()).backward()
    frozen = next(joint.teacher.parameters()).requires_grad_(False)
    next(joint.student.modules()).training = True
    next(joint.teacher.children()).eval()
    modes = [module.training for module in joint.modules()]
    values = {name: value.clone() for name, value in joint.state_dict().items()}
    gradients = {name: value.grad.clone() for name, value in joint.named_parameters() if value.grad is not None}
    random_state = torch.get_rng_state()

    split_student(joint, images)

    assert [module.training for module in joint.modules()] == modes
    assert all(torch.equal(value, values[name]) for name, value in joint.state_dict().items())
    kept = {name: value.grad for name, value in joint.named_parameters() if value.grad is not None}
    assert kept.keys() == gradients.keys()
    assert all(torch.equal(value, gradients[name]) for name, value in kept.items())
    assert not frozen.requires_grad
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_joint_model_is_left_as_it_was_when_the_split_fails(joint: ECDModel, images: Tensor) -> None:
    values = {name: value.clone() for name, value in joint.state_dict().items()}
    teacher = joint.teacher

    def refuse_other_values(_module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        if not torch.equal(next(teacher.parameters()), value):
            raise RuntimeError("the teacher is another one")

    value = next(teacher.parameters()).detach().clone()
    handle = teacher.register_forward_pre_hook(refuse_other_values)
    with pytest.raises(SplitError, match="the teacher is another one"):
        split_student(joint, images)
    handle.remove()
    assert all(torch.equal(value, values[name]) for name, value in joint.state_dict().items())
    assert joint.training
    assert split_student(joint, images).proof.passed


def test_splitting_twice_gives_the_same_proof(joint: ECDModel, images: Tensor) -> None:
    assert split_student(joint, images).proof == split_student(joint, images).proof


def test_a_student_may_be_partly_frozen(joint: ECDModel, images: Tensor) -> None:
    first = next(joint.student.parameters()).requires_grad_(False)
    proof = split_student(joint, images).proof
    assert len(proof.checks.dataflow.reached) == len(list(joint.student.parameters())) - 1
    assert not first.requires_grad


def test_an_example_that_is_no_batch_of_images_is_refused(joint: ECDModel, images: Tensor) -> None:
    with pytest.raises(SplitError, match=r"images \(N, C, H, W\), its shape is \(1, 8, 8\)"):
        split_student(joint, images[0])
    with pytest.raises(SplitError, match=r"fails on images \(4, 2, 8, 8\)"):
        split_student(joint, images.repeat(1, 2, 1, 1))
