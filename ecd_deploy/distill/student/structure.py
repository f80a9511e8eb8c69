"""The blocks and stages of any student, found from its modules and one forward.

A *block* is a composite module, with a convolution of a kernel above 1x1 inside, that stands in a
Sequential, ModuleList or ModuleDict, or beside a sibling of its own class, and is not itself made of
such blocks. A *stage* is a run of consecutive blocks whose outputs have one resolution; stages count
from 2, so that those of a ResNet are Conv2_x, Conv3_x, ... (paper, appendix A.1). In a student without
blocks each such convolution but the first is a block of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ecd_deploy.distill.student.probe import FeatureMap, probe
from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
FIRST_STAGE = 2


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of the student: what it gives, and what its convolutions above 1x1 give, in order of call."""

    output: FeatureMap
    convolutions: tuple[FeatureMap, ...]

    @property
    def name(self) -> str:
        """The module's name in the student."""
        return self.output.name


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive blocks with one output resolution (height, width), in pixels."""

    number: int
    resolution: tuple[int, int]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class StudentStructure:
    """What was found in a student for images of shape (C, H, W); `feature_maps` are those of all modules."""

    image_shape: tuple[int, int, int]
    stages: tuple[Stage, ...]
    called: frozenset[str]
    feature_maps: tuple[FeatureMap, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in the order in which they are called."""
        return tuple(block for stage in self.stages for block in stage.blocks)

    def stage(self, number: int) -> Stage:
        """Return a stage by its number.

        Raises:
            StudentError: there is none, the text lists those found.
        """
        for stage in self.stages:
            if stage.number == number:
                return stage
        found = ", ".join(f"{stage.number} ({stage.resolution[0]}x{stage.resolution[1]})" for stage in self.stages)
        channels, height, width = self.image_shape
        raise StudentError(
            f"the student has no stage {number}; for images of {channels}x{height}x{width} its stages are {found}"
        )


def find_structure(student: nn.Module, example: Tensor | None = None) -> StudentStructure:
    """Find a student's blocks and stages; the student is not touched.

    Args:
        student: any network of images (N, C, H, W) -> logits (N, classes).
        example: images (N, C, H, W); by default the size is guessed (see `probe`).

    Raises:
        StudentError: the student cannot be run, or has no convolution to replace.
    """
    seen = probe(student, example)
    spatial = {name for name, module in student.named_modules() if is_spatial(module)}
    convolutions = tuple(entry for entry in seen.feature_maps if entry.name in spatial)
    if not convolutions:
        raise StudentError("the student calls no torch.nn.Conv2d with a kernel above 1x1, there is nothing to replace")
    names = {name for name, _ in _candidates(student, "", isinstance(student, _CONTAINERS))}
    candidates = (_block(entry, convolutions) for entry in seen.feature_maps if entry.name in names)
    stem = convolutions[:1]
    blocks = [block for block in candidates if block.convolutions and block.convolutions != stem]
    if not blocks:
        blocks = [Block(output=entry, convolutions=(entry,)) for entry in convolutions[1:]]
    stages = tuple(
        Stage(number=number, resolution=resolution, blocks=tuple(members))
        for number, (resolution, members) in enumerate(
            groupby(blocks, key=lambda block: block.output.resolution), start=FIRST_STAGE
        )
    )
    return StudentStructure(
        image_shape=seen.image_shape, stages=stages, called=seen.called, feature_maps=seen.feature_maps
    )


def is_spatial(module: nn.Module) -> bool:
    """Whether the module is a convolution with a kernel above 1x1."""
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def _candidates(module: nn.Module, prefix: str, in_container: bool) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of the outermost blocks below `module`."""
    children = [(name, child) for name, child in module.named_children() if any(map(is_spatial, child.modules()))]
    kinds = [type(child) for _, child in children if _is_compound(child)]
    for name, child in children:
        path = f"{prefix}{name}"
        if isinstance(child, _CONTAINERS):
            yield from _candidates(child, f"{path}.", True)
        elif any(True for _ in child.children()):
            repeated = in_container or kinds.count(type(child)) > 1
            if repeated and not any(_is_compound(inner) for _, inner in _candidates(child, "", False)):
                yield path, child
            else:
                yield from _candidates(child, f"{path}.", False)


def _is_compound(module: nn.Module) -> bool:
    """Whether it has two layers with weights; a convolution with norm and activation has one and is no block."""
    matrices = (parameter for parameter in module.parameters() if parameter.ndim > 1)
    return sum(1 for _ in matrices) > 1


def _block(output: FeatureMap, convolutions: tuple[FeatureMap, ...]) -> Block:
    inside = tuple(conv for conv in convolutions if conv.name.startswith(f"{output.name}."))
    return Block(output=output, convolutions=inside)
