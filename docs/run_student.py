"""Classify images with an exported student, using nothing but numpy and onnxruntime, and Pillow for image files.

    python run_student.py student.onnx photo.jpg ...
    python run_student.py student.onnx images.npy

`images.npy` holds uint8 images of shape (N, C, H, W), of the size that the model takes. Image files of any size are put
upright and brought to that size as the model's metadata say; a model of full preprocessing does so itself. One class
name a line is printed.
"""

import json
import os
import sys

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # must stand before the import: it writes to the home directory otherwise
import onnxruntime


def main(model: str, *paths: str) -> None:
    """Normalise the images as the model's metadata says, and print the classes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["ecd_deploy"])
    for path in paths:
        classify(session, metadata, np.load(path) if path.endswith(".npy") else decode(path, metadata), path)


def decode(path: str, metadata: dict) -> np.ndarray:
    """Read an image file, scale it to fill what the metadata say and cut the middle out; uint8 (1, C, H, W)."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        sys.exit(
            "image files need Pillow: pip install pillow (or give uint8 images of the model's size as a .npy file)"
        )
    channels, height, width = metadata["input_shape"]
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("L" if channels == 1 else "RGB")
    except OSError as error:
        sys.exit(f"cannot read {path}: {error}")
    if metadata["preprocessing"] == "full":  # the model brings images to size itself
        return np.asarray(image).reshape(1, image.height, image.width, channels).transpose(0, 3, 1, 2)
    resize, (wide, high) = metadata.get("resize") or [height, width], image.size
    fill_high, fill_wide = resize if isinstance(resize, list) else (resize, resize)
    by_width = fill_wide * high >= fill_high * wide
    size = (fill_wide, fill_wide * high // wide) if by_width else (fill_high * wide // high, fill_high)
    image = image.resize(size, Image.Resampling.BILINEAR) if size != image.size else image
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)))
    return pixels.reshape(1, height, width, channels).transpose(0, 3, 1, 2)


def classify(session: onnxruntime.InferenceSession, metadata: dict, pixels: np.ndarray, path: str) -> None:
    """Print the class of each of uint8 images (N, C, H, W)."""
    if list(pixels.shape[1:]) != metadata["input_shape"] and metadata["preprocessing"] != "full":
        resize = metadata.get("resize")
        scale = "scale them to fill" if isinstance(resize, list) else "scale the shorter side to"
        how = f": {scale} {resize} pixels and cut the middle out" if resize else ""
        sys.exit(f"{path} has images of {list(pixels.shape[1:])}, the model takes {metadata['input_shape']}{how}")
    if metadata["preprocessing"] != "outside":  # the model takes the pixels themselves, channels last
        given = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    else:
        mean, std = (np.array(metadata[key], dtype=np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
        given = (pixels.astype(np.float32) / 255 - mean) / std
    size = metadata["batch"] or len(given)  # a file for mobile runtimes takes one image at a time
    for start in range(0, len(given), size):
        (logits,) = session.run(["logits"], {"images": given[start : start + size]})
        for index in logits.argmax(axis=1):
            print(metadata["classes"][index])


if __name__ == "__main__":
    main(*sys.argv[1:])
