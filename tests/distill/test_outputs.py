# mypy: untyped-calls-exclude=accelerate

"""What torch and Accelerate do with a model's outputs on their way: cast them, exchange gradients, export them."""

from __future__ import annotations

import torch
from accelerate.utils.operations import convert_to_fp32
from torch import Tensor
from torch.nn.parallel.distributed import _find_tensors
from torch.utils._pytree import tree_leaves, tree_map_only

from ecd_deploy.distill import FeaturePair, TrainingOutputs


def full() -> TrainingOutputs:
    """Every field is there but the ensemble."""
    one, two, three, four, five, six = torch.arange(6, dtype=torch.bfloat16)
    return TrainingOutputs(student=one, teacher=two, branches=(three,), pairs=(FeaturePair(four, five),), transfer=six)


def test_heads_are_those_that_there_are_by_name_and_the_student_is_the_first() -> None:
    student, teacher, ensemble = torch.zeros(3, 2, 5)
    assert list(TrainingOutputs(student).heads()) == ["student"]
    assert list(TrainingOutputs(student, ensemble=ensemble).heads()) == ["student", "ensemble"]
    heads = TrainingOutputs(ensemble=ensemble, teacher=teacher, student=student, transfer=torch.zeros(())).heads()
    assert list(heads) == ["student", "teacher", "ensemble"]
    assert heads["teacher"] is teacher


def test_what_mixed_precision_casts_stays_in_its_field() -> None:
    found = convert_to_fp32(full())
    assert isinstance(found, TrainingOutputs)
    assert isinstance(found.pairs[0], FeaturePair)
    assert found.ensemble is None
    expected: TrainingOutputs = tree_map_only(Tensor, Tensor.float, full())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_every_tensor_is_found_in_order() -> None:
    for tensors in (_find_tensors(full()), tree_leaves(full())):  # type: ignore[no-untyped-call]
        values = [tensor.item() for tensor in tensors if isinstance(tensor, Tensor)]
        assert values == [0, 1, 2, 3, 4, 5]
