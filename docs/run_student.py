"""Classify images with an exported student, using nothing but numpy and onnxruntime.

    python run_student.py student.onnx images.npy

`images.npy` holds uint8 images of shape (N, C, H, W), of the size that the model takes: nothing is resized here. If the
model's metadata have `resize`, scale the shorter side of each image to that many pixels first (bilinear, antialiased)
and cut the middle out, as the training's evaluation did. One class name a line is printed.
"""

import json
import os
import sys

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # must stand before the import: it writes to the home directory otherwise
import onnxruntime


def main(model: str, images: str) -> None:
    """Normalise the images as the model's metadata says, and print the classes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["ecd_deploy"])
    pixels = np.load(images)
    if list(pixels.shape[1:]) != metadata["input_shape"]:
        resize = metadata.get("resize")
        how = f": scale the shorter side to {resize} pixels and cut the middle out" if resize else ""
        sys.exit(f"{images} has images of {list(pixels.shape[1:])}, the model takes {metadata['input_shape']}{how}")
    if metadata["preprocessing"] == "inside":  # the model takes the pixels themselves, channels last
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
