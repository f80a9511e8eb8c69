"""The classes of photos, for `run.py` of a bundle; needs Pillow besides numpy and onnxruntime. Python 3.8 and newer."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

_TOP = 3


def show(read: Callable[[str], bytes], images: Sequence[str], session: onnxruntime.InferenceSession) -> int:
    """Print the classes of images; `read` gives the bundle's files, compared with their digests."""
    lines = classify(session, json.loads(read("bundle.json")), json.loads(read("labels.json")), images)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def classify(
    session: onnxruntime.InferenceSession, description: dict[str, Any], labels: Sequence[str], images: Sequence[str]
) -> list[str]:
    """A line for each image with its most probable classes.

    Args:
        session: of the ONNX file.
        description: `bundle.json`.
        labels: names of the outputs, in order.
        images: paths of image files, of any size.

    Raises:
        OSError: a file is absent or is no image.
    """
    import numpy as np

    lines = []
    for path in images:
        given = prepare(read_pixels(path, description["preprocessing"]), description["preprocessing"])
        given = np.repeat(given, description["batch"] or 1, axis=0)
        scores = session.run([description["output"]], {description["input"]: given})[0][0].astype(np.float64).ravel()
        if description["scores"] == "logits":
            scores = np.exp(scores - scores.max())
        ranked = np.argsort(-scores, kind="stable")[:_TOP]
        shares = scores / scores.sum()
        lines.append(f"{path}: " + ", ".join(f"{labels[index]} {shares[index]:.1%}" for index in ranked))
    return lines


def read_pixels(path: str, preprocessing: dict[str, Any]) -> NDArray[np.uint8]:
    """Decode an image as it was decoded where the bundle was made: upright, over black, brought to size.

    Returns:
        uint8 (1, height, width, channels), RGB or grey; of its own size where the model brings it to its.

    Raises:
        OSError: the file is absent or is no image.
    """
    import numpy as np
    from PIL import Image, ImageOps

    height, width, resize = (preprocessing[name] for name in ("height", "width", "resize"))
    grey = preprocessing["channels"] == "grey"
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    image = image.convert("L" if grey else "RGB")
    if preprocessing["framed_by_model"]:
        return np.asarray(image).reshape(1, image.height, image.width, 1 if grey else 3)
    if resize is None and image.size != (width, height):
        resize = height if height == width else "stretch"
    if resize == "stretch":
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    elif resize is not None:
        fill_high, fill_wide = resize if isinstance(resize, list) else (resize, resize)
        wide, high = image.size
        by_width = fill_wide * high >= fill_high * wide
        size = (fill_wide, fill_wide * high // wide) if by_width else (fill_high * wide // high, fill_high)
        image = image.resize(size, Image.Resampling.BILINEAR) if size != image.size else image
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    pixels: NDArray[np.uint8] = np.asarray(image).reshape(1, height, width, 1 if grey else 3)
    return pixels


def prepare(pixels: NDArray[np.uint8], preprocessing: dict[str, Any]) -> NDArray[Any]:
    """The model's input of uint8 pixels (N, H, W, C), RGB or grey, of its size.

    In this order: channels put in order, `pixel / 255 * scale`, minus mean, divided by std.
    """
    import numpy as np

    given: NDArray[Any] = pixels[..., ::-1] if preprocessing["channels"] == "bgr" else pixels
    if preprocessing["dtype"] != "uint8":
        mean, std = (np.array(preprocessing[name], dtype=np.float32) for name in ("mean", "std"))
        given = (given.astype(np.float32) / np.float32(255 / preprocessing["scale"]) - mean) / std
    if preprocessing["layout"] == "nchw":
        given = given.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(given, dtype=preprocessing["dtype"])
