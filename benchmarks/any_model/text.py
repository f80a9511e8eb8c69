"""The classifier of text direction that rapidocr-onnxruntime ships, on lines of the licence, upright and turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.any_model.quantised import quantise
from benchmarks.any_model.wheels import find_wheel, read_member

_MODEL = "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
_HEIGHT, _WIDTH = 48, 192
_LINES, _CALIBRATION = 150, 30
_WORDS_A_LINE = 4
_CONFIG = f"""[input]
size = [{_HEIGHT}, {_WIDTH}]
resize = "stretch"
channels = "bgr"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
classes = "classes.txt"

[gate]
min_top1 = 0.9
min_class_recall = 0.8
max_baseline_drop = 0.05
max_p50_ratio = 10.0

[profile]
min_seconds = 0.5
"""


def prepare(wheels: Path, folder: Path) -> None:
    """Write `model.onnx`, `model-int8.onnx`, `lines/0/` and `lines/180/`, `classes.txt` and `gate.toml`.

    The lines are at least four times as wide as high: shorter ones the model's own code pads, and does not stretch.
    """
    (folder / "model.onnx").write_bytes(read_member(find_wheel(wheels, "rapidocr_onnxruntime"), _MODEL))
    (folder / "gate.toml").write_text(_CONFIG)
    (folder / "classes.txt").write_text("0\n180\n")
    words = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8").split()
    lines = [words[start : start + _WORDS_A_LINE] for start in range(0, len(words), _WORDS_A_LINE)]
    random = np.random.default_rng(0)
    images = [_draw(" ".join(line), random) for line in lines[: _LINES + _CALIBRATION]]
    for name in ("0", "180"):
        (folder / "lines" / name).mkdir(parents=True)
    for number, image in enumerate(images[:_LINES]):
        image.save(folder / f"lines/0/{number:03}.png")
        image.transpose(Image.Transpose.ROTATE_180).save(folder / f"lines/180/{number:03}.png")
    calibration = [image.resize((_WIDTH, _HEIGHT), Image.Resampling.BILINEAR) for image in images[_LINES:]]
    turned = [image.transpose(Image.Transpose.ROTATE_180) for image in calibration]
    pixels = np.stack([np.asarray(image) for image in calibration + turned])[..., ::-1].transpose(0, 3, 1, 2)
    given = np.ascontiguousarray(pixels, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    quantise(folder / "model.onnx", folder / "model-int8.onnx", "x", given, per_channel=False)


def _draw(text: str, random: np.random.Generator) -> Image.Image:
    """A line of dark text on a light ground, or the other way about, in some size and colours, with noise."""
    font = ImageFont.load_default(size=int(random.integers(18, 40)))
    left, top, right, bottom = font.getbbox(text)
    margin = int(random.integers(2, 8))
    height = int(bottom - top) + 2 * margin
    width = max(int(right - left) + 2 * margin, 4 * height)
    dark, light = random.integers(0, 90, 3), random.integers(165, 256, 3)
    ground, ink = (light, dark) if random.random() < 0.7 else (dark, light)
    image = Image.new("RGB", (width, height), tuple(int(value) for value in ground))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, tuple(int(value) for value in ink), font)
    noise = random.normal(0, 8, (height, width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
