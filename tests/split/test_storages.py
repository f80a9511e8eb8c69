from __future__ import annotations

import torch
from torch._subclasses import FakeTensorMode

from ecd_deploy.split.inventory import NamedTensor
from ecd_deploy.split.storages import StorageIndex


def test_memory_is_shared_by_views_and_not_by_tensors_that_only_say_their_shape() -> None:
    whole = torch.ones(4, 3)
    index = StorageIndex([NamedTensor("whole", "attribute", whole)])
    assert index.sharing(whole[2:]) == ("whole",)
    assert index.sharing(torch.ones(4, 3)) == ()
    with FakeTensorMode():
        shape = torch.empty(4, 3)
    assert index.sharing(shape) == ()
    assert StorageIndex([NamedTensor("shape", "attribute", shape)]).sharing(whole) == ()
