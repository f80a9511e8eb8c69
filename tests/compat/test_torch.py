from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import export

from ecd_deploy.compat import torch as compat


class Linears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(images).mul_(2)
        return result


def test_what_is_registered_is_told_also_where_it_is_tied_and_can_be_taken_away() -> None:
    norm = nn.BatchNorm1d(3)
    tied = nn.Module()
    tied.first = tied.second = norm
    assert list(compat.own_children(tied)) == ["first", "second"]
    assert dict(compat.own_parameters(norm)) == dict(norm.named_parameters(recurse=False))
    assert dict(compat.own_buffers(norm)) == dict(norm.named_buffers(recurse=False))
    assert set(compat.REGISTERS) <= vars(norm).keys()
    assert {id(vars(norm)[name]) for name in compat.REGISTERS} == {
        id(table) for table in (compat.own_parameters(norm), compat.own_buffers(norm), compat.own_children(norm))
    }
    compat.own_parameters(norm).clear()
    compat.own_buffers(norm).clear()
    compat.own_children(tied).clear()
    assert not norm.state_dict()
    assert list(tied.children()) == []


def test_each_kind_of_hook_is_found() -> None:
    module = nn.Linear(1, 1)
    assert not compat.has_forward_hooks(module)
    assert not any(compat.hooks_of(module).values())
    handles = [
        module.register_forward_hook(lambda *_: None),
        module.register_forward_pre_hook(lambda *_: None),
        module.register_full_backward_hook(lambda *_: None),
        module.register_full_backward_pre_hook(lambda *_: None),
    ]
    assert sorted(len(hooks) for hooks in compat.hooks_of(module).values()) == [1, 1, 1, 1]
    for handle in handles[1:]:
        handle.remove()
    assert compat.has_forward_hooks(module)
    handles[0].remove()
    assert not compat.has_forward_hooks(module)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(2), nn.SyncBatchNorm(2), nn.InstanceNorm2d(2, track_running_stats=True)]
)
def test_norms_with_running_statistics_are_known(norm: nn.Module) -> None:
    assert compat.is_normalisation(norm)
    norm.reset_running_stats()
    assert not compat.is_normalisation(nn.GroupNorm(1, 2))


def test_tensors_move_by_a_share_of_the_way_in_place() -> None:
    tensors, targets = ([torch.rand(shape) for shape in ((2, 3), (4,), ())] for _ in range(2))
    before = [tensor.clone() for tensor in tensors]
    compat.move_towards(tensors, targets, torch.tensor(0.25))
    for tensor, old, target in zip(tensors, before, targets, strict=True):
        torch.testing.assert_close(tensor, 0.75 * old + 0.25 * target)


def test_the_padding_of_a_convolution_pads_as_it_does() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=(1, 2), padding_mode="reflect", bias=False)
    images = torch.randn(1, 1, 6, 7)
    padded = nn.functional.pad(images, compat.convolution_padding(conv), mode="reflect")
    assert torch.equal(nn.functional.conv2d(padded, conv.weight), conv(images))


def test_writes_views_and_hooks_of_a_tensor_are_seen() -> None:
    tensor = torch.zeros(4, requires_grad=True) * 1
    before = compat.version_of(tensor)
    view = tensor.view(2, 2)
    assert compat.is_view(view)
    assert not compat.is_view(tensor)
    view.add_(1)
    assert compat.version_of(tensor) > before
    assert compat.gradient_hooks(tensor) is None
    tensor.register_hook(lambda gradient: gradient)  # type: ignore[no-untyped-call]
    assert compat.gradient_hooks(tensor)
    parameter = nn.Parameter(torch.zeros(1))
    assert not compat.accumulation_hooks(parameter)
    parameter.register_post_accumulate_grad_hook(lambda _: None)  # type: ignore[no-untyped-call]
    assert compat.accumulation_hooks(parameter)


def test_views_share_a_memory_also_without_data() -> None:
    with torch.device("meta"):
        tensor, other = torch.zeros(4), torch.zeros(4)
    assert compat.storage_identity(tensor) == compat.storage_identity(tensor[1:])
    assert compat.storage_identity(tensor) != compat.storage_identity(other)


def test_nodes_of_an_exported_graph_tell_operator_value_and_module() -> None:
    program = export(Linears(), (torch.zeros(2, 3),), strict=False)
    linear, write = (node for node in program.graph.nodes if node.op == "call_function")
    schema = compat.schema_of(write.target)
    assert schema is not None
    assert (schema.name, schema.is_mutable) == ("aten::mul_", True)
    assert "other" in [argument.name for argument in schema.arguments]
    assert compat.schema_of("no operator") is None
    value = compat.traced_value(linear)
    assert isinstance(value, torch.Tensor)
    assert value.shape == (2, 3)
    assert compat.innermost_module(linear) == "inner.0"
    assert compat.innermost_module(write) == ""
    linear.meta.pop("nn_module_stack")
    assert compat.innermost_module(linear) == ""
    assert not compat.is_higher_order(linear.target)


def test_an_operator_with_graphs_of_its_own_is_known() -> None:
    class Branching(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = torch.cond(images.sum() > 0, torch.sin, torch.cos, (images,))
            return result

    program = export(Branching(), (torch.zeros(2),), strict=False)
    assert any(compat.is_higher_order(node.target) for node in program.graph.nodes)


def test_the_scale_of_a_loss_is_put_back_with_its_growth() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    assert compat.growth_tracker(scaler) == 0
    compat.restore_scale(scaler, scale=16.0, growth=2)
    assert (scaler.get_scale(), compat.growth_tracker(scaler), scaler.get_growth_interval()) == (16.0, 2, 3)
    # at the next step without an overflow the scale grows: the restored number is the one that is counted on
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    torch.autograd.backward(scaler.scale(parameter.sum()))
    scaler.step(optimizer)
    scaler.update()
    assert (scaler.get_scale(), compat.growth_tracker(scaler)) == (32.0, 0)


def test_a_number_that_a_forward_spells_out_is_copied_afresh() -> None:
    class Scaled(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * torch.tensor(2.5)

    program = export(Scaled(), (torch.zeros(2),), strict=False)
    fresh = [compat.is_fresh_copy(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert fresh.count(True) == 1


def test_a_graph_without_provenance_names_no_file_and_runs_as_before() -> None:
    program = export(Linears(), (torch.zeros(2, 3),), strict=False)
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    assert any(__file__ in str(node.meta) for node in nodes)
    images = torch.randn(2, 3)
    before = program.module()(images)
    for node in nodes:
        compat.forget_provenance(node)
    assert not any(__file__ in str(node.meta) for node in nodes)
    assert torch.equal(program.module()(images), before)
