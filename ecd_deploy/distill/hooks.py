"""Reading features of the student and adding to the teacher's, without editing either.

Hooks stand only inside the context managers below: neither network keeps one, also after an exception; `adding` says
where a teacher keeps them a little longer.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from ecd_deploy.compat.torch import saved_tensor_hooks, version_of
from ecd_deploy.distill.convolution.dynamic_conv import DynamicConv2d
from ecd_deploy.distill.convolution.triton.convolution import Offer
from ecd_deploy.distill.outputs import FeaturePair
from ecd_deploy.distill.student.feature_maps import feature_in, with_feature
from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecd_deploy.distill.sites import ConnectionSite

_OTHER_WAY = "a module that is left out at random cannot be connected: set method.stages or method.sites without it"


class FeatureQueue:
    """The student's features of one site in one forward, first in, first out.

    A module that is called several times gives several features, and its counterpart in the teacher is
    called as often.
    """

    def __init__(self, site: ConnectionSite) -> None:
        self._site = site
        self._features: deque[tuple[Tensor, int]] = deque()

    def __len__(self) -> int:
        return len(self._features)

    @property
    def first(self) -> Tensor:
        """The oldest feature, which stays."""
        return self._features[0][0]

    def put(self, feature: Tensor) -> None:
        """Append a feature (N, C, H, W)."""
        if self._site.overwritten:
            feature = feature.clone()
        self._features.append((feature, version_of(feature)))

    def take(self) -> Tensor:
        """Remove and return the oldest feature.

        Raises:
            StudentError: the student has changed it in place.
        """
        feature, version = self._features.popleft()
        if version_of(feature) != version:
            raise StudentError(
                f"the student changes the output of '{self._site.name}' in place in training mode only; "
                "use inplace=False there"
            )
        return feature


FeatureQueues = dict[str, FeatureQueue]
Connect = Callable[[str, Tensor, Tensor], Tensor]


class MakeOffer(Protocol):
    """Makes what a dynamic convolution may compute by itself."""

    def __call__(self, name: str, student_feature: Tensor, *, is_later: bool) -> Offer | None:
        """That of a site and a student's feature, None if it is not that simple."""


@contextmanager
def reading(student: nn.Module, sites: tuple[ConnectionSite, ...]) -> Iterator[FeatureQueues]:
    """Collect the student's features at the sites while the context lasts."""
    queues = {site.name: FeatureQueue(site) for site in sites}

    def reader(name: str, queue: FeatureQueue) -> Callable[[nn.Module, Any, Any], None]:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            queue.put(_feature(name, output))

        return read

    with ExitStack() as hooks:
        for name, queue in queues.items():
            handle = student.get_submodule(name).register_forward_hook(reader(name, queue))
            hooks.callback(handle.remove)
        yield queues


@contextmanager
def adding(
    teacher: nn.Module, connect: Connect | None, queues: FeatureQueues, offer: MakeOffer | None = None
) -> Iterator[None]:
    """Replace the teacher's features by `phi_T + T(phi_S)` while the context lasts.

    A module that student or teacher left out at random (LayerDrop, stochastic depth) has no feature on one side: it is
    connected in the steps in which both run it. Where the teacher checkpoints activations, it computes them again in
    the backward pass; there the hooks stay until its next forward, and add the same again.

    Args:
        teacher: whose features they are.
        connect: (site, teacher's feature, student's) -> the teacher's new one, as `FeatureConnections` do; None
            replaces nothing.
        queues: what each site of the teacher receives.
        offer: what a dynamic convolution is given to compute by itself: that of the site, or the last one within it.

    Raises:
        StudentError: the features of a site do not fit each other, or both call it, but not equally often.
    """
    if connect is None:
        yield
        return
    if (left := _recomputing.pop(teacher, None)) is not None:
        left.close()
    around = saved_tensor_hooks()
    additions = [
        _Addition(name, teacher.get_submodule(name), queue, connect, offer, around) for name, queue in queues.items()
    ]
    with ExitStack() as hooks:
        for addition in additions:
            hooks.callback(addition.module.register_forward_hook(addition).remove)
            within = [part for part in addition.module.modules() if isinstance(part, DynamicConv2d)]
            if within and within[-1].backend == "triton":
                hooks.callback(within[-1].register_forward_pre_hook(addition.offer).remove)
        yield
        if less := [addition.name for addition in additions if addition.has_features_left]:
            raise StudentError(f"the teacher calls {', '.join(less)} less often than the student did; {_OTHER_WAY}")
        if any(addition.is_recomputed for addition in additions):
            for addition in additions:
                addition.begin_again()
            _recomputing[teacher] = hooks.pop_all()


class _Addition:
    """The forward hook of one site of the teacher.

    Args:
        name, module: of the site.
        queue: what it receives.
        connect, offer: see `adding`.
        around: the hooks for saved tensors outside the teacher's forward; others within mean that it is computed again.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        queue: FeatureQueue,
        connect: Connect,
        offer: MakeOffer | None,
        around: object,
    ) -> None:
        self.name = name
        self.module = module
        self.is_recomputed = False
        self._queue = queue
        self._connect = connect
        self._offer = offer
        self._offered: Offer | None = None
        self._around = around
        self._used: list[Tensor] = []
        self._is_again = False

    @property
    def has_features_left(self) -> bool:
        """Whether some of the student's features were used and others were not."""
        return bool(self._used) and len(self._queue) > 0

    def begin_again(self) -> None:
        """From now on the module is called by the backward pass, to be computed again."""
        self._is_again = True

    def offer(self, module: DynamicConv2d, _inputs: Any) -> None:
        """Give the convolution that is about to run what it may add by itself; not if it is computed again later."""
        if self._offer is not None and len(self._queue) and saved_tensor_hooks() is self._around:
            offered = self._offer(self.name, self._queue.first, is_later=module is not self.module)
            module.offered += () if offered is None else (offered,)
            self._offered = offered

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> object:
        """Add the student's feature; nothing where the student left the module out."""
        if self._is_again:
            feature = self._feature_again()
        else:
            self.is_recomputed |= saved_tensor_hooks() is not self._around
            feature = self._feature()
        if feature is None:
            return None
        offered, self._offered = self._offered, None
        if offered is not None and offered.is_taken and not offered.is_later:
            return None
        own = _feature(self.name, output)
        if own.shape != feature.shape:
            raise StudentError(f"student and teacher give features of other shapes at '{self.name}'; {_OTHER_WAY}")
        if offered is not None and offered.product is not None:
            return with_feature(output, own + offered.product)
        return with_feature(output, self._connect(self.name, own, feature))

    def _feature(self) -> Tensor | None:
        if len(self._queue):
            self._used.append(self._queue.take())
            return self._used[-1]
        if self._used:
            raise StudentError(f"the teacher calls '{self.name}' more often than the student did; {_OTHER_WAY}")
        return None  # the student left the module out in this step

    def _feature_again(self) -> Tensor | None:
        if len(self._used) > 1:
            raise StudentError(
                f"'{self.name}' is called several times and its activations are checkpointed: it cannot be connected; "
                "set method.stages or method.sites without it"
            )
        return self._used[0] if self._used else None


_recomputing: weakref.WeakKeyDictionary[nn.Module, ExitStack] = weakref.WeakKeyDictionary()
"""Hooks that a teacher needs in the backward pass, until its next forward."""


def feature_pairs(student: FeatureQueues, teacher: FeatureQueues) -> tuple[FeaturePair, ...]:
    """Put the features of both side by side, site by site; nothing where one of them left the module out.

    Raises:
        StudentError: both call a module, but not equally often.
    """
    pairs: list[FeaturePair] = []
    for name, queue in student.items():
        if not (len(queue) and len(teacher[name])):
            continue
        if len(queue) != len(teacher[name]):
            raise StudentError(f"student and teacher do not call '{name}' equally often, so it cannot be compared")
        while len(queue):
            pairs.append(FeaturePair(queue.take(), teacher[name].take()))
    return tuple(pairs)


def _feature(name: str, output: object) -> Tensor:
    feature = feature_in(output)
    if feature is None:
        raise StudentError(f"in training mode '{name}' gives no tensor (N, C, H, W), so it cannot be connected")
    return feature
