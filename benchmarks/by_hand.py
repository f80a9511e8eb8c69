"""The steps after training as a competent user writes them, for one student: see `main`.

The same exports, proof by `torch.export`, parity on 256 images, top-1 of PyTorch and ONNX on all, latency, cold start,
throughput and page as the recipe `cifar100-resnet20` asks for: torch, onnxruntime, numpy and Pillow alone. Only the
student's class is ours.

Left out is what needs more than a script: all checks of the joint model that the student is split off, the audit of
each file's tensors, time and operations by layer, digests, the model card and the bill of materials.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ecd_deploy.models import build_student

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
BATCH, PARITY_IMAGES, WARM_UP_SECONDS, SECONDS = 128, 256, 0.5, 2.0
COLD_STARTS, THROUGHPUT_BATCHES, BLOCKS, BLOCK_SECONDS = 3, (1, 8, 32), 6, 0.05
_Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def main(run: Path, test: Path, out: Path) -> None:
    """Prove, export, compare, count and time: `python -m benchmarks.by_hand RUN TEST OUT` writes OUT/report.json."""
    out.mkdir(parents=True, exist_ok=True)
    weights = sorted(run.glob("checkpoints/step-*/weights.safetensors"))[-1]
    tensors = safetensors.torch.load_file(weights)
    state = {name.removeprefix("student."): value for name, value in tensors.items() if name.startswith("student.")}
    student = _fresh()
    student.load_state_dict(state)
    images, labels = _read(test)
    proof = _prove(student, images[:8])
    files = _export(student, state, out)
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(images), BATCH)
        expected = torch.cat([student(batch) for batch in batches]).numpy()
    session = _session(files["onnx"])
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = np.concatenate(list(pool.map(session, np.split(images, len(images)))))
    loaded = _fresh()
    loaded.load_state_dict(safetensors.torch.load_file(files["safetensors"]))
    runs = {"safetensors": _torch(loaded), "torchscript": _torch(torch.jit.load(files["torchscript"]))}  # type: ignore[no-untyped-call]
    parity = {name: _largest(expected, [run(image) for image in _few(images)]) for name, run in runs.items()}
    report = {
        "proof": proof,
        "parity": {**parity, "onnx": float(np.abs(expected - found).max())},
        "top1": [float((logits.argmax(1) == labels).mean()) for logits in (expected, found)],
        "other_batch": float(np.abs(session(images[:32]) - found[:32]).max()),
        "latency_ms": _latency(session, images[:1]),
        "cold_start_ms": _cold_start(files["onnx"]),
        "images_per_second": [_throughput(session, images[:size]) for size in THROUGHPUT_BATCHES],
        "bytes": {name: path.stat().st_size for name, path in files.items()},
    }
    (out / "report.json").write_text(json.dumps(report, indent=2))


def _fresh() -> nn.Module:
    return build_student("resnet20", num_classes=100, in_channels=3).eval().requires_grad_(False)


def _read(test: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    folders = sorted(folder for folder in test.iterdir() if folder.is_dir())
    paths = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in paths]).transpose(0, 3, 1, 2)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, STD))
    images = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return images.astype(np.float32, copy=False), np.array([label for _, label in paths])


def _prove(student: nn.Module, images: NDArray[np.float32]) -> bool:
    """Whether the graph of the student reads its own tensors and no others."""
    program = torch.export.export(student, (torch.from_numpy(images),), strict=False)
    own = {name for name, _ in student.named_parameters()} | {name for name, _ in student.named_buffers()}
    return set(program.state_dict) <= own and not program.constants


def _export(student: nn.Module, state: dict[str, torch.Tensor], out: Path) -> dict[str, Path]:
    files = {"onnx": out / "m.onnx", "safetensors": out / "m.safetensors", "torchscript": out / "m.pt"}
    example = torch.zeros(2, 3, 32, 32)
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        student, (example,), files["onnx"], dynamo=True, dynamic_shapes=batch, external_data=False, verbose=False
    )
    onnx.checker.check_model(onnx.load(files["onnx"]), full_check=True)
    safetensors.torch.save_file(state, files["safetensors"])
    torch.jit.freeze(torch.jit.trace(student, example)).save(files["torchscript"])  # type: ignore[no-untyped-call]
    return files


def _session(path: Path) -> _Logits:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _torch(module: nn.Module) -> _Logits:
    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: torch.Tensor = module(torch.from_numpy(images))
        return logits.numpy()

    return run


def _few(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return np.split(images[:PARITY_IMAGES], PARITY_IMAGES)


def _largest(expected: NDArray[np.float32], found: Sequence[NDArray[np.float32]]) -> float:
    return float(np.abs(expected[:PARITY_IMAGES] - np.concatenate(found)).max())


def _latency(run: _Logits, image: NDArray[np.float32]) -> float:
    """Median milliseconds, after a warm-up."""
    _samples(run, image, WARM_UP_SECONDS)
    return float(np.median(_samples(run, image, SECONDS)) * 1e3)


def _throughput(run: _Logits, images: NDArray[np.float32]) -> float:
    """Images a second, by the fastest of several blocks."""
    return len(images) / min(float(np.median(_samples(run, images, BLOCK_SECONDS))) for _ in range(BLOCKS))


def _samples(run: _Logits, images: NDArray[np.float32], seconds: float) -> list[float]:
    samples = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.perf_counter()
        run(images)
        samples.append(time.perf_counter() - started)
    return samples


_FIRST_RESULT = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: numpy.zeros((1, 3, 32, 32), numpy.float32)})
"""


def _cold_start(path: Path) -> float:
    """Median milliseconds of a fresh process to its first result."""
    samples = []
    for _ in range(COLD_STARTS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", _FIRST_RESULT, str(path)], check=True)
        samples.append(time.perf_counter() - started)
    return float(np.median(samples) * 1e3)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:]))
