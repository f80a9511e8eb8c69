"""Dense feature connections from the student to the teacher: paper, section 3.4 and table 6."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeGuard, get_args

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import has_forward_hooks, is_view, is_vmapped
from ecd_deploy.distill.additive import add_conv1x1
from ecd_deploy.distill.convolution.triton.convolution import Offer
from ecd_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecd_deploy.distill.convolution.dynamic_conv import TeacherInit
    from ecd_deploy.distill.hooks import FeatureQueues
    from ecd_deploy.distill.sites import ConnectionSite

ConnectionKind = Literal["direct", "conv1x1", "conv1x1_bn"]


class FeatureConnections(nn.Module):
    """The transforms T of `phi_T := phi_T + T(phi_S)`, one a site.

    `direct` is the identity, without parameters; `conv1x1` a 1x1 convolution without bias; `conv1x1_bn`
    the same followed by batch norm. The convolution starts as torch draws it (the paper is silent).
    The student's feature is not detached: the teacher's loss reaches the student through it.

    With `teacher_init` "student" they are means, `phi_T := (phi_T + T(phi_S)) / 2`, and T starts as the identity. A
    teacher that is otherwise the student's function then keeps to it: where what comes in is the student's, so is
    `phi_T`, and so is the mean. That holds for any weights F, F_T(w, w) = F_S(w), of student and teacher, so that
    their gradients of the teacher's loss add up to the student's of its own. Each site on the way back to a layer
    leaves half of what is still the teacher's to the student: behind m sites in a row it has 1 - 2^-m of the gradient
    that its own loss would give it, half at the least, and in the same direction.
    """

    def __init__(
        self,
        sites: Iterable[ConnectionSite],
        kind: ConnectionKind = "conv1x1",
        teacher_init: TeacherInit = "fresh",
    ) -> None:
        """Make a transform for each site.

        Raises:
            UsageError: no such kind, or one that cannot start as the identity where it is to.
        """
        super().__init__()
        if kind not in get_args(ConnectionKind):
            raise UsageError(f"no connection '{kind}'; choices are {', '.join(get_args(ConnectionKind))}")
        self.averages = teacher_init == "student"
        if self.averages and kind == "conv1x1_bn":
            raise UsageError("connection 'conv1x1_bn' cannot start as the identity; 'direct' and 'conv1x1' can")
        self.kind = kind
        self.sites = tuple(sites)
        self._places = {site.name: site.place for site in self.sites}
        self.transforms = nn.ModuleDict(
            {module_key(site.name): transform_of(site.channels, site.channels, kind) for site in self.sites}
        )
        if self.averages:
            self._start_as_identities()

    def gather(self, features: FeatureQueues) -> FeatureQueues:
        """Turn the student's features of one forward into what each site of the teacher receives: here, the same."""
        return features

    def forward(self, name: str, teacher_feature: Tensor, student_feature: Tensor) -> Tensor:
        """Return the teacher's new feature at the site `name`; all three are (N, C, H, W)."""
        if self.averages:
            teacher_feature, student_feature = teacher_feature / 2, student_feature / 2
        transform = self.transforms[module_key(name)]
        if _is_bare(transform) and _is_plain(teacher_feature, student_feature, transform.weight):
            # A convolution's fresh output is needed by nothing else; a block's may be, by its own backward pass.
            is_fresh = self._places[name] == "convolution"
            in_place = is_fresh and teacher_feature.is_contiguous() and not is_view(teacher_feature)
            return add_conv1x1(teacher_feature, student_feature, transform.weight, in_place=in_place)
        transformed: Tensor = transform(student_feature)
        return teacher_feature + transformed

    def offer(self, name: str, student_feature: Tensor, *, is_later: bool) -> Offer | None:
        """What a convolution of the teacher may compute by itself: the student's feature through a bare 1x1 one."""
        transform = self.transforms[module_key(name)] if name in self._places else None
        if transform is None or self.averages or not _is_bare(transform):
            return None
        return Offer(student=student_feature, weight=transform.weight, is_later=is_later)

    def _start_as_identities(self) -> None:
        """Let each convolution give the last of its input channels, as many as it gives."""
        for transform in self.transforms.values():
            if isinstance(transform, nn.Conv2d):
                outputs, inputs = transform.weight.shape[:2]
                with torch.no_grad():
                    transform.weight.copy_(torch.eye(inputs)[inputs - outputs :, :, None, None])


def _is_bare(transform: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is the convolution alone, which nobody watches by hooks."""
    return type(transform) is nn.Conv2d and not has_forward_hooks(transform)


def _is_plain(*tensors: Tensor) -> bool:
    """Whether they have one dtype, nothing, such as autocast, is to change it, and they are of one training."""
    device = tensors[0].device.type
    is_one_dtype = len({tensor.dtype for tensor in tensors}) == 1 and not torch.is_autocast_enabled(device)
    return is_one_dtype and not is_vmapped(tensors[0])


def module_key(name: str) -> str:
    """Return a module's name without dots, which torch does not allow in keys."""
    return name.replace(".", "/")


def transform_of(in_channels: int, out_channels: int, kind: ConnectionKind) -> nn.Module:
    """A fresh transform (N, in_channels, H, W) -> (N, out_channels, H, W); `direct` leaves the channels as they are."""
    if kind == "direct":
        return nn.Identity()
    convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return convolution if kind == "conv1x1" else nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
