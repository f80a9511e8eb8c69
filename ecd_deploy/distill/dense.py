"""Multi-layer to single-layer connections, ECD (dens): paper, appendix A.3 and table 14.

A layer of the teacher receives the student's layer at its depth and all connected layers before it: the
paper's "all previous layers" are read as those that have connections, so not the stem, nor the blocks of a
stage that is left out. Nor does it say how layers of other sizes are brought together. Our choice: an earlier
feature is averaged down to the layer's resolution, and a 1x1 convolution maps its channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from ecd_deploy.distill.connections import ConnectionKind, FeatureConnections, module_key, transform_of
from ecd_deploy.distill.hooks import FeatureQueue, FeatureQueues
from ecd_deploy.errors import StudentError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecd_deploy.distill.convolution.dynamic_conv import TeacherInit
    from ecd_deploy.distill.sites import ConnectionSite


class DenseConnections(FeatureConnections):
    """The sums `phi_T^l := phi_T^l + sum over k <= l of T_kl(phi_S^k)` over the connected sites, in order of call.

    The transforms of one sum are one 1x1 convolution of all its features side by side, which is the same;
    with `conv1x1_bn` the sum is normalised once.
    """

    def __init__(
        self,
        sites: Iterable[ConnectionSite],
        kind: ConnectionKind = "conv1x1",
        teacher_init: TeacherInit = "fresh",
    ) -> None:
        """Make a transform for each site.

        Raises:
            UsageError: `direct`, which cannot change a feature's width, or as `FeatureConnections`.
        """
        super().__init__((), kind, teacher_init)
        if kind == "direct":
            raise UsageError("dense connections need 'conv1x1' or 'conv1x1_bn': earlier layers have other widths")
        self.sites = tuple(sites)
        channels = 0
        for site in self.sites:
            channels += site.channels
            self.transforms[module_key(site.name)] = transform_of(channels, site.channels, kind)
        if self.averages:
            self._start_as_identities()

    def gather(self, features: FeatureQueues) -> FeatureQueues:
        """Turn the student's features of one forward into what each site of the teacher receives.

        Raises:
            StudentError: a module was called more than once, so that its earlier layers are not defined.
        """
        sums: FeatureQueues = {}
        before: list[Tensor | None] = []
        for site in self.sites:
            queue = features[site.name]
            if len(queue) > 1:
                raise StudentError(
                    f"the student calls '{site.name}' {len(queue)} times in a forward; dense connections need "
                    "layers that are called once"
                )
            own = queue.take() if len(queue) else None  # None where the student left the module out in this step
            before.append(own)
            sums[site.name] = FeatureQueue(site)
            if own is not None:
                together = [_fitted(layer, earlier, own) for layer, earlier in zip(before, self.sites, strict=False)]
                sums[site.name].put(self.transforms[module_key(site.name)](torch.cat(together, dim=1)))
        return sums

    def forward(self, name: str, teacher_feature: Tensor, student_feature: Tensor) -> Tensor:  # noqa: ARG002
        """Add what `gather` made for the site; both are (N, C, H, W)."""
        return (teacher_feature + student_feature) / 2 if self.averages else teacher_feature + student_feature


def _fitted(layer: Tensor | None, site: ConnectionSite, like: Tensor) -> Tensor:
    """A site's feature at the height and width of another one; zeros where there is none."""
    side = (like.shape[2], like.shape[3])
    if layer is None:
        return like.new_zeros(len(like), site.channels, *side)
    return layer if layer.shape[2:] == side else F.adaptive_avg_pool2d(layer, side)
