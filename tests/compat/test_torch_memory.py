# mypy: untyped-calls-exclude=torch

from __future__ import annotations

import torch

from ecd_deploy.compat.torch_memory import refer_to_storage, with_storage


def test_a_memory_keeps_its_number_while_it_is_referred_to() -> None:
    tensor = torch.ones(100)
    reference = refer_to_storage(tensor)
    assert refer_to_storage(tensor[3:]).cdata == reference.cdata
    del tensor
    assert reference.expired()
    assert all(refer_to_storage(torch.ones(100)).cdata != reference.cdata for _ in range(10))


def test_a_tensor_can_be_placed_on_the_memory_of_another() -> None:
    holder = torch.arange(12.0)
    placed = with_storage(holder[4:], torch.float32, (2, 3), (1, 2), 1)
    assert torch.equal(placed, torch.tensor([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]))
    assert with_storage(holder, torch.int32, (12,), (1,), 0)[0] == 0
    placed.zero_()
    assert holder[1:7].norm() == 0
