"""What distillation losses look at in a network: logits, features of each stage, and the embedding."""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ecd_deploy.distill.student.feature_maps import feature_given, feature_in
from ecd_deploy.distill.student.structure import find_structure
from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Knowledge:
    """What one forward of a network showed.

    Attributes:
        inputs: of each stage's first block, (N, C, H, W): the first such tensor that it is called with, by itself or
            in a list; (N, 0, 0, 0) for a block that gets none. Only FSP compares them.
        stages: outputs of each stage's last block, (N, C, H, W).
        embedding: what the classifier gets, (N, features).
        logits: (N, classes).
    """

    inputs: list[Tensor] = field(default_factory=list)
    stages: list[Tensor] = field(default_factory=list)
    embedding: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))

    def detached(self) -> Knowledge:
        """The same values without their history."""
        return Knowledge(
            [feature.detach() for feature in self.inputs],
            [feature.detach() for feature in self.stages],
            self.embedding.detach(),
            self.logits.detach(),
        )


class KnowledgeReader:
    """Knows where in a network its stages begin and end, and which linear layer is its last.

    Attributes:
        shapes: what a forward of one image shows, to build transforms by.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        """Look at a copy of the network.

        Args:
            network: images (N, C, H, W) -> logits (N, classes).
            example: such images.

        Raises:
            StudentError: the network cannot be run or treated.
        """
        structure = find_structure(network, example)
        self._first = tuple(stage.blocks[0].name for stage in structure.stages)
        self._last = tuple(stage.blocks[-1].name for stage in structure.stages)
        self._classifier = _last_linear(network, example)
        observed = copy.deepcopy(network).eval()
        with torch.no_grad(), self.reading(observed) as found:
            found.logits = observed(example[:1].to(next(observed.parameters()).device))
        self.shapes = found

    @property
    def last_block(self) -> str:
        """Name of the last stage's last block."""
        return self._last[-1]

    def require_inputs(self, loss: str) -> None:
        """See that each stage's first block gets a feature.

        Args:
            loss: whose name the error gives.

        Raises:
            StudentError: naming the blocks that get none.
        """
        without = [name for name, given in zip(self._first, self.shapes.inputs, strict=True) if not given.numel()]
        if without:
            raise StudentError(
                f"method.pretrained.losses: '{loss}' compares what each stage gets with what it gives, and "
                f"{', '.join(without)} is called with no tensor (N, C, H, W), nor with a tuple or list that holds one; "
                "the other losses do not need it"
            )

    @contextmanager
    def reading(self, network: nn.Module) -> Iterator[Knowledge]:
        """Collect knowledge, save the logits, while the context lasts; it is whole at its end.

        Raises:
            StudentError: a stage's first block was not called, or its last gave no feature.
        """
        inputs: dict[str, Tensor | None] = {}
        outputs: dict[str, Tensor] = {}
        embedding: dict[str, Tensor] = {}
        found = Knowledge()
        with ExitStack() as hooks:
            for name in self._first:
                handle = network.get_submodule(name).register_forward_pre_hook(_taker(name, inputs), with_kwargs=True)
                hooks.callback(handle.remove)
            for name in self._last:
                handle = network.get_submodule(name).register_forward_hook(_keeper(name, outputs))
                hooks.callback(handle.remove)
            if self._classifier is not None:
                handle = network.get_submodule(self._classifier).register_forward_pre_hook(
                    _embedding_taker(self._classifier, embedding)
                )
                hooks.callback(handle.remove)
            yield found
        missing = [name for name in self._first if name not in inputs]
        missing += [name for name in self._last if name not in outputs and name not in missing]
        if missing:
            raise StudentError(f"the network did not call {', '.join(missing)}, or got no tensor (N, C, H, W) from it")
        found.stages = [outputs[name] for name in self._last]
        given = (inputs[name] for name in self._first)
        found.inputs = [
            stage.new_empty(len(stage), 0, 0, 0) if feature is None else feature
            for feature, stage in zip(given, found.stages, strict=True)
        ]
        last = embedding.get(self._classifier or "", found.stages[-1])
        found.embedding = last.mean(dim=(2, 3)) if last.ndim == 4 else last.flatten(1)


def _taker(name: str, kept: dict[str, Tensor | None]) -> Callable[[nn.Module, Any, Any], None]:
    def take(_module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        feature = feature_given(arguments, keywords)
        # a block may change what it gets in place
        kept[name] = None if feature is None else feature.clone()

    return take


def _embedding_taker(name: str, kept: dict[str, Tensor]) -> Callable[[nn.Module, Any], None]:
    def take(_module: nn.Module, arguments: tuple[object, ...]) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            # what follows may change it in place
            kept[name] = arguments[0].clone()

    return take


def _keeper(name: str, kept: dict[str, Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def keep(_module: nn.Module, _arguments: Any, output: object) -> None:
        feature = feature_in(output)
        if feature is not None:
            # what follows may change it in place
            kept[name] = feature.clone()

    return keep


def _last_linear(network: nn.Module, example: Tensor) -> str | None:
    """Name of the linear layer that is called last; None if there is none."""
    observed = copy.deepcopy(network).eval()
    called: list[str] = []

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _arguments, _output: called.append(name)

    for name, module in observed.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(recorder(name))
    with torch.no_grad():
        observed(example[:1].to(next(observed.parameters()).device))
    return called[-1] if called else None
