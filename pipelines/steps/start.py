"""What a student starts from: the weights that its recipe names, and which of its parameters learn how fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from ecd_deploy.data import DataSplits
from ecd_deploy.distill.sites import name_pattern
from ecd_deploy.errors import ArtefactError, EcdDeployError, RecipeError, StudentError
from ecd_deploy.exporters import exporter_for
from ecd_deploy.exporters.files.metadata import METADATA_KEY, ArtefactMetadata, parse_metadata
from ecd_deploy.files import read_bytes
from ecd_deploy.models.pretrained import pretrained_weights
from ecd_deploy.models.weights import StartWeights, fill, head_tensors
from ecd_deploy.pipelines.record.artefacts import read_artefacts
from ecd_deploy.pipelines.record.names import WEIGHTS_NAME
from ecd_deploy.pipelines.record.run_directory import read_run
from ecd_deploy.pipelines.record.start import Start
from ecd_deploy.pipelines.steps.data import load_run_data
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.recipe.student import PRETRAINED, StudentConfig
from ecd_deploy.training.trackers import require_trackers

_HEAD_STD = 0.01

Builder = Callable[[int], nn.Module]
"""Builds the student for a number of classes."""


def load_training_data(recipe: Recipe) -> DataSplits:
    """Read the images that the recipe names, normalised as the weights that the student starts from need it.

    Raises:
        RecipeError: the recipe needs what these images have not, or a tracker that is not installed.
        DataError: images that cannot be used.
        StudentError: the weights cannot be had.
    """
    require_trackers(recipe.train.trackers)
    data = load_run_data(recipe)
    weights = open_weights(recipe, data)
    return data if weights is None else start_of(recipe, data, weights).normalised(data)


def open_weights(recipe: Recipe, data: DataSplits) -> StartWeights | None:
    """Read the weights that the recipe names; None where the student starts fresh.

    Raises:
        RecipeError: there is no such file, or it leaves mean and std open.
        StudentError: the library has no such weights.
        ArtefactError: the file or run is damaged, or the run is not finished.
    """
    config = recipe.student
    if config.weights is None:
        return None
    if config.weights == PRETRAINED:
        return pretrained_weights(config.name, data.in_channels)
    path = Path(config.weights).expanduser()
    if path.is_dir():
        return _of_run(path)
    if path.suffix != ".safetensors" or not path.is_file():
        raise RecipeError(
            f"student.weights: '{config.weights}' is neither 'pretrained', a .safetensors file nor a run directory"
        )
    return _of_file(path)


def start_of(recipe: Recipe, data: DataSplits, weights: StartWeights) -> Start:
    """What is recorded of the weights; the recipe's own mean and std, where it has them, go before theirs.

    Raises:
        RecipeError: nobody knows mean and std, or they are of other channels.
    """
    if recipe.data.mean is not None:
        mean, std = data.normalisation.mean, data.normalisation.std
    elif weights.mean is None or weights.std is None:
        raise RecipeError(
            f"student.weights: {weights.origin} does not say with which mean and std it was trained: set data.mean and "
            "data.std, often [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225]"
        )
    else:
        mean, std = weights.mean, weights.std
    if len(mean) != data.in_channels:
        raise RecipeError(
            f"student.weights: {weights.origin} is for images of {len(mean)} channels, the data have {data.in_channels}"
        )
    return Start(weights=str(recipe.student.weights), origin=weights.origin, digest=weights.digest, mean=mean, std=std)


def start_student(
    config: StudentConfig, weights: StartWeights, classes: tuple[str, ...], build: Builder
) -> tuple[nn.Module, frozenset[str]]:
    """Build a student, fill it, and freeze what the recipe says.

    Args:
        config: the recipe's.
        weights: that `config.weights` names.
        classes: of the data.
        build: builds the student.

    Returns:
        The student, and the names of its tensors that were taken from the weights.

    Raises:
        StudentError: the weights do not fit, or a pattern of `freeze` matches nothing, or everything.
    """
    student = build(len(classes))
    fresh = head_tensors(student, build(len(classes) + 1)) if config.head == "replace" else frozenset()
    if config.head == "keep" and weights.classes not in (None, classes):
        raise StudentError(
            f"student.head: 'keep', but the classes of {weights.origin} are not those of the data, in their order: "
            "'replace' starts a fresh head"
        )
    fill(student, weights, fresh)
    _draw_head(student, fresh)
    _freeze(student, config.freeze)
    return student, frozenset(student.state_dict()) - fresh


@torch.no_grad()
def _draw_head(student: nn.Module, fresh: frozenset[str]) -> None:
    """Start a head at nearly equal scores: a wide draw sends large gradients through what the weights have learnt.

    The draw is the one that torchvision gives the heads of its MobileNets.
    """
    for name, module in student.named_modules():
        if f"{name}.weight" in fresh and isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=_HEAD_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _freeze(student: nn.Module, patterns: tuple[str, ...]) -> None:
    expressions = {pattern: name_pattern(pattern) for pattern in patterns}
    unmatched = set(patterns)
    for name, parameter in student.named_parameters():
        parts = name.split(".")
        paths = [".".join(parts[: count + 1]) for count in range(len(parts))]
        found = {pattern for pattern, regex in expressions.items() if any(map(regex.fullmatch, paths))}
        unmatched -= found
        if found:
            parameter.requires_grad_(False)
    if unmatched:
        children = ", ".join(name for name, _ in student.named_children())
        raise StudentError(
            f"student.freeze: {', '.join(map(repr, sorted(unmatched)))} matches no parameter of the student and no "
            f"module that holds one; its modules are {children}"
        )
    if patterns and not any(parameter.requires_grad for parameter in student.parameters()):
        raise StudentError("student.freeze: every parameter of the student is frozen, so nothing can be learnt")


def _of_file(path: Path) -> StartWeights:
    try:
        tensors = safetensors.torch.load(read_bytes(path))
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except SafetensorError as error:
        raise ArtefactError(f"student.weights: {path} is no safetensors file: {error}") from error
    metadata = None if text is None else parse_metadata(text, "safetensors")
    return _described(StartWeights(origin=str(path), tensors=tensors), metadata)


def _of_run(path: Path) -> StartWeights:
    try:
        directory = read_run(path)
        directory.require(WEIGHTS_NAME)
        tensors = safetensors.torch.load(directory.read(WEIGHTS_NAME))
        artefact = read_artefacts(directory).artefacts[0]
        exporter = exporter_for(artefact.format, directory.recipe.export)
        metadata = exporter.read_metadata(directory.read(artefact.file))
    except EcdDeployError as error:
        raise type(error)(f"student.weights: {error}") from error
    return _described(StartWeights(origin=f"run {path}", tensors=tensors), metadata)


def _described(weights: StartWeights, metadata: ArtefactMetadata | None) -> StartWeights:
    if metadata is None:
        return weights
    return replace(weights, mean=metadata.mean, std=metadata.std, classes=metadata.classes)
