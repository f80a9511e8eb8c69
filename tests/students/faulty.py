"""Small students with one fault each, as people have met them; the tests of the rehearsal say what becomes of each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Residual(nn.Module):
    def __init__(self, channels: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = norm(channels)

    def forward(self, features: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(features)))
        return torch.relu(features + self.norm2(self.conv2(inner)))


class Net(nn.Module):
    """Stem, two blocks, something in between, a head."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        middle: nn.Module | None = None,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.blocks = nn.Sequential(Residual(8, norm), Residual(8, norm))
        self.middle = middle or nn.Identity()
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.middle(self.blocks(self.stem(images)))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, features: Tensor) -> Tensor:
        return self.function(features)


class Output(nn.Module):
    """Net with its logits changed."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner = inner
        self.change = change

    def forward(self, images: Tensor) -> object:
        return self.change(self.inner(images))


def sound(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels)


# The logits of an image depend on its batch.


def statistics_of_the_batch(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, norm=lambda channels: nn.BatchNorm2d(channels, track_running_stats=False))


def mean_of_the_batch(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Apply(lambda features: features - features.mean(0)))


def hidden_behind_zeros(num_classes: int, in_channels: int) -> nn.Module:
    """The batch enters a branch that starts at zero, as the last norm of a residual branch often does."""

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1, 8, 1, 1))

        def forward(self, features: Tensor) -> Tensor:
            return features + self.scale * (features - features.mean(0))

    return Net(num_classes, in_channels, Branch())


def branch_on_the_batch_size(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Apply(lambda features: features * 2 if len(features) > 1 else features))


def branch_on_a_large_batch(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Apply(lambda features: features * 2 if len(features) > 8 else features))


def deviation_of_the_batch(num_classes: int, in_channels: int) -> nn.Module:
    """Of one image there is none: its logits are NaN."""
    return Net(num_classes, in_channels, Apply(lambda features: features / (features.std(0) + 1)))


def attention_over_the_batch(num_classes: int, in_channels: int) -> nn.Module:
    """So sharp before any training that no logit moves: each image looks at itself."""

    def attend(features: Tensor) -> Tensor:
        flat = features.flatten(1)
        return features + ((flat @ flat.T * 4).softmax(1) @ flat).view_as(features)

    return Net(num_classes, in_channels, Apply(attend))


# It varies by itself.


def random_in_evaluation(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Apply(F.dropout))


def counts_its_calls(num_classes: int, in_channels: int) -> nn.Module:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, features: Tensor) -> Tensor:
            self.calls += 1
            return features

    return Net(num_classes, in_channels, Counting())


def writes_a_buffer(num_classes: int, in_channels: int) -> nn.Module:
    class Writing(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, features: Tensor) -> Tensor:
            self.seen += 1
            return features

    return Net(num_classes, in_channels, Writing())


def caches(num_classes: int, in_channels: int) -> nn.Module:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cache: dict[int, Tensor] = {}

        def forward(self, features: Tensor) -> Tensor:
            width = features.shape[-1]
            if not self.training and width not in self.cache:
                self.cache[width] = torch.ones(width)
            return features

    return Net(num_classes, in_channels, Caching())


def locks(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.stem.lock = threading.Lock()  # type: ignore[assignment]
    return student


def counts_in_an_array(num_classes: int, in_channels: int) -> nn.Module:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = np.zeros(1)

        def forward(self, features: Tensor) -> Tensor:
            self.calls += 1
            return features

    return Net(num_classes, in_channels, Counting())


class Tally:
    calls = 0


def counts_in_an_object(num_classes: int, in_channels: int) -> nn.Module:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tally = Tally()

        def forward(self, features: Tensor) -> Tensor:
            self.tally.calls += 1
            return features

    return Net(num_classes, in_channels, Counting())


def registers_when_called(num_classes: int, in_channels: int) -> nn.Module:
    class Registering(nn.Module):
        grid: Tensor | None

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("grid", None)

        def forward(self, features: Tensor) -> Tensor:
            if self.grid is None:
                self.grid = torch.ones(features.shape[-1])
            return features * self.grid

    return Net(num_classes, in_channels, Registering())


def hooks_a_gradient(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.stem.weight.register_hook(lambda gradient: gradient / 2)  # type: ignore[no-untyped-call]
    return student


def hooks_itself(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.blocks[0].register_forward_hook(lambda *_: None)
    return student


# Its parameters.


def lazy(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.head = nn.LazyLinear(num_classes)
    return student


def on_the_meta_device(num_classes: int, in_channels: int) -> nn.Module:
    with torch.device("meta"):
        return Net(num_classes, in_channels)


def double(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels).double()


def brain_float(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels).to(torch.bfloat16)


def frozen(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels).requires_grad_(False)


def unused_layer(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.add_module("spare", nn.Linear(8, 8))
    return student


def layer_in_a_closure(num_classes: int, in_channels: int) -> nn.Module:
    layers = {"first": nn.Conv2d(8, 8, 1)}
    return Net(num_classes, in_channels, Apply(lambda features: layers["first"](features) * 2))


def layer_in_an_attribute(num_classes: int, in_channels: int) -> nn.Module:
    """A plain list that is copied with its module."""

    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Conv2d(8, 8, 1)]

        def forward(self, features: Tensor) -> Tensor:
            output: Tensor = self.layers[0](features)
            return output

    return Net(num_classes, in_channels, Holding())


def scripted(num_classes: int, in_channels: int) -> nn.Module:
    module: nn.Module = torch.jit.script(
        nn.Sequential(nn.Conv2d(in_channels, 8, 8), nn.Flatten(), nn.Linear(8, num_classes))
    )
    return module


# Its logits.


def rows_lost(num_classes: int, in_channels: int) -> nn.Module:
    return Output(Net(num_classes * 4, in_channels), lambda logits: logits.view(-1, num_classes))


def squeezed(num_classes: int, in_channels: int) -> nn.Module:
    return Output(Net(num_classes, in_channels), lambda logits: logits[:, :, None, None].squeeze())


def not_flattened(num_classes: int, in_channels: int) -> nn.Module:
    return Output(Net(num_classes, in_channels), lambda logits: logits[:, :, None, None])


def takes_eight_images(num_classes: int, in_channels: int) -> nn.Module:
    return Output(Net(num_classes, in_channels), lambda logits: logits.view(8, num_classes))


def ten_and_one(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes + 1, in_channels)


def no_gradient(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.forward = torch.no_grad()(student.forward)  # type: ignore[method-assign]
    return student


def detached_block(num_classes: int, in_channels: int) -> nn.Module:
    return Output(Net(num_classes, in_channels), Tensor.detach)


def detached_inside(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Apply(lambda features: features.detach()))


def leaves_torch(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Apply(lambda features: torch.from_numpy(np.tanh(features.detach().numpy()))))


def in_inference_mode(num_classes: int, in_channels: int) -> nn.Module:
    class Inference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Net(num_classes, in_channels)

        @torch.inference_mode()
        def forward(self, images: Tensor) -> object:
            return self.inner(images)

    return Inference()


def gives_a_dict(num_classes: int, in_channels: int) -> nn.Module:
    return Output(Net(num_classes, in_channels), lambda logits: {"logits": logits})


def gives_a_tuple(num_classes: int, in_channels: int) -> nn.Module:
    return Output(Net(num_classes, in_channels), lambda logits: (logits, logits))


@dataclass
class Classified:
    logits: Tensor


def gives_a_dataclass(num_classes: int, in_channels: int) -> nn.Module:
    return Output(Net(num_classes, in_channels), Classified)


def made_for_other_images(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, num_classes))


def half_inside(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Apply(lambda features: (features.bfloat16() * 2).float()))


# What a format cannot hold.


def lacks_an_operator(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, nn.AdaptiveMaxPool2d((5, 3)))


def branches_on_values(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Apply(lambda features: features if features.sum() > 1e9 else features * 2))


def asserts_values(num_classes: int, in_channels: int) -> nn.Module:
    class Checked(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            assert torch.isfinite(features).all()
            return features

    return Net(num_classes, in_channels, Checked())


def checkpointed_reentrantly(num_classes: int, in_channels: int) -> nn.Module:
    block = Residual(8)

    class Reentrant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, features: Tensor) -> Tensor:
            output: Tensor = checkpoint(self.block, features, use_reentrant=True)
            return output

    return Net(num_classes, in_channels, Reentrant())


# What must work.


def branches_in_the_graph(num_classes: int, in_channels: int) -> nn.Module:
    """`torch.cond` is a branch that a graph can hold."""

    class Branching(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            output: Tensor = torch.cond(features.sum() > 1e9, lambda x: x * 2, lambda x: x + 1, (features,))
            return output

    return Net(num_classes, in_channels, Branching())


def expert_by_chance(num_classes: int, in_channels: int) -> nn.Module:
    """In training one of three is chosen, so that the others have no gradient; later all have a say."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(Residual(8) for _ in range(3))

        def forward(self, features: Tensor) -> Tensor:
            if self.training:
                output: Tensor = self.experts[int(torch.randint(3, ()))](features)
                return output
            return torch.stack([expert(features) for expert in self.experts]).mean(0)

    return Net(num_classes, in_channels, Experts())


def forward_compiled(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.forward = torch.compile(student.forward)  # type: ignore[method-assign]
    return student


def leaves_out_at_random(num_classes: int, in_channels: int) -> nn.Module:
    class LayerDrop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Residual(8)

        def forward(self, features: Tensor) -> Tensor:
            if self.training and torch.rand(()) < 0.8:
                return features
            output: Tensor = self.block(features)
            return output

    return Net(num_classes, in_channels, LayerDrop())


class Checkpointed(nn.Module):
    def __init__(self, block: nn.Module, *, active: bool = True) -> None:
        super().__init__()
        self.block = block
        self.active = active

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = checkpoint(self.block, features, use_reentrant=False) if self.active else self.block(features)
        return output


def checkpointed(num_classes: int, in_channels: int) -> nn.Module:
    return Net(num_classes, in_channels, Checkpointed(Residual(8)))


def compiled(num_classes: int, in_channels: int) -> nn.Module:
    module = torch.compile(Net(num_classes, in_channels))
    assert isinstance(module, nn.Module)
    return module


def in_parallel(num_classes: int, in_channels: int) -> nn.Module:
    return nn.DataParallel(Net(num_classes, in_channels))


def block_compiled(num_classes: int, in_channels: int) -> nn.Module:
    student = Net(num_classes, in_channels)
    student.blocks[0] = torch.compile(student.blocks[0])  # type: ignore[assignment]
    return student
