"""Dense feature connections from the student to the teacher: paper, section 3.4 and table 6."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeGuard, get_args

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import has_forward_hooks, is_view
from ecd_deploy.distill.additive import add_conv1x1
from ecd_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecd_deploy.distill.hooks import FeatureQueues
    from ecd_deploy.distill.sites import ConnectionSite

ConnectionKind = Literal["direct", "conv1x1", "conv1x1_bn"]


class FeatureConnections(nn.Module):
    """The transforms T of `phi_T := phi_T + T(phi_S)`, one a site.

    `direct` is the identity, without parameters; `conv1x1` a 1x1 convolution without bias; `conv1x1_bn`
    the same followed by batch norm. The convolution starts as torch draws it (the paper is silent).
    The student's feature is not detached: the teacher's loss reaches the student through it.
    """

    def __init__(self, sites: Iterable[ConnectionSite], kind: ConnectionKind = "conv1x1") -> None:
        """Make a transform for each site.

        Raises:
            UsageError: no such kind.
        """
        super().__init__()
        if kind not in get_args(ConnectionKind):
            raise UsageError(f"no connection '{kind}'; choices are {', '.join(get_args(ConnectionKind))}")
        self.kind = kind
        self.sites = tuple(sites)
        self._fresh = frozenset(site.name for site in self.sites if site.place == "convolution")
        self.transforms = nn.ModuleDict({module_key(site.name): _transform(site.channels, kind) for site in self.sites})

    def gather(self, features: FeatureQueues) -> FeatureQueues:
        """Turn the student's features of one forward into what each site of the teacher receives: here, the same."""
        return features

    def forward(self, name: str, teacher_feature: Tensor, student_feature: Tensor) -> Tensor:
        """Return the teacher's new feature at the site `name`; all three are (N, C, H, W)."""
        transform = self.transforms[module_key(name)]
        if _is_bare(transform) and _is_plain(teacher_feature, student_feature, transform.weight):
            # A convolution's fresh output is needed by nothing else; a block's may be, by its own backward pass.
            in_place = name in self._fresh and teacher_feature.is_contiguous() and not is_view(teacher_feature)
            return add_conv1x1(teacher_feature, student_feature, transform.weight, in_place=in_place)
        transformed: Tensor = transform(student_feature)
        return teacher_feature + transformed


def _is_bare(transform: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is the convolution alone, which nobody watches by hooks."""
    return type(transform) is nn.Conv2d and not has_forward_hooks(transform)


def _is_plain(*tensors: Tensor) -> bool:
    """Whether they have one dtype and nothing, such as autocast, is to change it."""
    device = tensors[0].device.type
    return len({tensor.dtype for tensor in tensors}) == 1 and not torch.is_autocast_enabled(device)


def module_key(name: str) -> str:
    """Return a module's name without dots, which torch does not allow in keys."""
    return name.replace(".", "/")


def _transform(channels: int, kind: ConnectionKind) -> nn.Module:
    if kind == "direct":
        return nn.Identity()
    convolution = nn.Conv2d(channels, channels, 1, bias=False)
    if kind == "conv1x1":
        return convolution
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))
