"""The pretrained weights of torchvision and timm, by the libraries' own loaders and caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecd_deploy.errors import StudentError, reraise_machine_fault
from ecd_deploy.models.libraries import WITH_AUXILIARY_HEADS
from ecd_deploy.models.resolve import build_student
from ecd_deploy.models.weights import StartWeights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def pretrained_weights(name: str, in_channels: int) -> StartWeights:
    """Load the library's weights of a student, from its cache or else by a download.

    Args:
        name: `torchvision:NAME`, whose default weights are taken, or `timm:NAME`, with a tag or without.
        in_channels: of the images; timm fits its weights to them.

    Raises:
        StudentError: the library has no such network or no weights for it, or they cannot be had.
    """
    build_student(name, num_classes=2, in_channels=in_channels)  # which tells of a wrong name what there is
    library, _, model = name.partition(":")
    try:
        return _of_torchvision(model) if library == "torchvision" else _of_timm(model, in_channels)
    except Exception as error:  # of download, cache and file: each library and each client has its own
        reraise_machine_fault(error)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise StudentError(
            f"student.weights: the pretrained weights of '{name}' cannot be had: {type(error).__name__}: "
            f"{lines[0] if lines else 'no message'}; without a network, {_way_into_cache(library, model)}, or give a "
            ".safetensors file"
        ) from error


def _way_into_cache(library: str, model: str) -> str:
    if library == "timm":
        return "fill the cache of the Hugging Face hub, $HF_HOME"
    from torch import hub
    from torchvision import models

    return f"put {models.get_model_weights(model)['DEFAULT'].url} into {hub.get_dir()}/checkpoints"


def _of_torchvision(model: str) -> StartWeights:
    from torchvision import models

    weights = models.get_model_weights(model)["DEFAULT"]
    network = models.get_model(model, weights=weights)
    if model in WITH_AUXILIARY_HEADS:
        # their weights come with a change of the input, from this normalisation to that of ImageNet
        mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    else:
        preset = weights.transforms()
        mean, std = tuple(preset.mean), tuple(preset.std)
    return _started(network, f"torchvision {model} {weights.name}", mean, std)


def _of_timm(model: str, in_channels: int) -> StartWeights:
    import timm

    network = timm.create_model(model, pretrained=True, in_chans=in_channels)
    config: Mapping[str, Any] = vars(network)["pretrained_cfg"]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if len(mean) != in_channels:
        mean, std = (sum(mean) / len(mean),) * in_channels, (sum(std) / len(std),) * in_channels
    return _started(network, f"timm {config['architecture']}.{config['tag']}", mean, std)


def _started(network: nn.Module, origin: str, mean: tuple[float, ...], std: tuple[float, ...]) -> StartWeights:
    tensors = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(_AUXILIARY)}
    return StartWeights(origin=origin, tensors=tensors, mean=mean, std=std)
