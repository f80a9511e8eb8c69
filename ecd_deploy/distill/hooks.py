"""Reading features of the student and adding to the teacher's, without editing either.

Hooks stand only inside the context managers below: neither network keeps one, also after an exception.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ecd_deploy.compat.torch import version_of
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

    def put(self, feature: Tensor) -> None:
        """Append a feature (N, C, H, W)."""
        if self._site.overwritten:
            feature = feature.clone()
        self._features.append((feature, version_of(feature)))

    def take(self) -> Tensor:
        """Remove and return the oldest feature.

        Raises:
            StudentError: there is none, or the student has changed it in place.
        """
        if not self._features:
            raise StudentError(f"the teacher calls '{self._site.name}' more often than the student did; {_OTHER_WAY}")
        feature, version = self._features.popleft()
        if version_of(feature) != version:
            raise StudentError(
                f"the student changes the output of '{self._site.name}' in place in training mode only; "
                "use inplace=False there"
            )
        return feature


FeatureQueues = dict[str, FeatureQueue]
Connect = Callable[[str, Tensor, Tensor], Tensor]


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
def adding(teacher: nn.Module, connect: Connect | None, queues: FeatureQueues) -> Iterator[None]:
    """Replace the teacher's features by `phi_T + T(phi_S)` while the context lasts.

    Args:
        teacher: whose features they are.
        connect: (site, teacher's feature, student's) -> the teacher's new one, as `FeatureConnections` do; None
            replaces nothing.
        queues: what each site of the teacher receives.

    Raises:
        StudentError: a feature of the student was not used, because the teacher took another way.
    """
    if connect is None:
        yield
        return

    def adder(name: str, queue: FeatureQueue) -> Callable[[nn.Module, Any, Any], object]:
        def add(_module: nn.Module, _inputs: Any, output: Any) -> object:
            result: Tensor = connect(name, _feature(name, output), queue.take())
            return with_feature(output, result)

        return add

    with ExitStack() as hooks:
        for name, queue in queues.items():
            handle = teacher.get_submodule(name).register_forward_hook(adder(name, queue))
            hooks.callback(handle.remove)
        yield
    unused = [name for name, queue in queues.items() if len(queue)]
    if unused:
        raise StudentError(f"the teacher calls {', '.join(unused)} less often than the student did; {_OTHER_WAY}")


def feature_pairs(student: FeatureQueues, teacher: FeatureQueues) -> tuple[FeaturePair, ...]:
    """Put the features of both side by side, site by site.

    Raises:
        StudentError: the two did not call a module equally often.
    """
    pairs: list[FeaturePair] = []
    for name, queue in student.items():
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
