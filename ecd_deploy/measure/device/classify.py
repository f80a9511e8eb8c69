"""The classes of photos, for `run.py` of a bundle; needs Pillow besides numpy and onnxruntime. Python 3.8 and newer."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

_TOP = 3


def show(read: Callable[[str], bytes], images: Sequence[str], threads: int | None) -> int:
    """Print the classes of images; `read` gives the bundle's files, compared with their digests."""
    description, labels = json.loads(read("bundle.json")), json.loads(read("labels.json"))
    threads = threads or description["latency"]["threads"]
    lines = classify(read(description["model"]), description, labels, images, threads)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def classify(
    model: bytes, description: dict[str, Any], labels: Sequence[str], images: Sequence[str], threads: int
) -> list[str]:
    """A line for each image with its most probable classes.

    Args:
        model: the ONNX file.
        description: `bundle.json`.
        labels: names of the logits, in order.
        images: paths of image files, of any size.
        threads: of onnxruntime.

    Raises:
        OSError: a file is absent or is no image.
    """
    import numpy as np
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    session = ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    inside = description["preprocessing"] == "inside"
    sides = session.get_inputs()[0].shape[1:]
    height, width, channels = sides if inside else (*sides[1:], sides[0])
    lines = []
    for path in images:
        pixels = read_pixels(path, height, width, channels, description["resize"])
        given = pixels if inside else _normalised(pixels, description)
        logits = session.run(["logits"], {"images": given})[0][0].astype(np.float64)
        powers = np.exp(logits - logits.max())
        ranked = np.argsort(-powers, kind="stable")[:_TOP]
        shares = powers / powers.sum()
        lines.append(f"{path}: " + ", ".join(f"{labels[index]} {shares[index]:.1%}" for index in ranked))
    return lines


def read_pixels(path: str, height: int, width: int, channels: int, resize: int | None) -> NDArray[np.uint8]:
    """Decode an image as the training did: upright, over black, the shorter side scaled, the middle cut out.

    Returns:
        uint8 (1, height, width, channels).

    Raises:
        OSError: the file is absent or is no image.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    if resize is not None or image.size != (width, height):
        shorter = resize or height
        wide, high = image.size
        size = (shorter, shorter * high // wide) if wide <= high else (shorter * wide // high, shorter)
        image = image.resize(size, Image.Resampling.BILINEAR) if size != image.size else image
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    pixels: NDArray[np.uint8] = np.asarray(image).reshape(1, height, width, channels)
    return pixels


def _normalised(pixels: NDArray[np.uint8], description: dict[str, Any]) -> NDArray[np.float32]:
    import numpy as np

    mean, std = (np.array(description[name], dtype=np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    images: NDArray[np.float32] = (pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255) - mean) / std
    return images
