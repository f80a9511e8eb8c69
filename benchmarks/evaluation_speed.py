"""What decoding beside onnxruntime costs: `evaluate` on 10,000 image files against onnxruntime alone.

An untrained ResNet-20 on the test images of CIFAR-100, which ECD_DEPLOY_CIFAR100 names. onnxruntime alone runs a
session of its default settings, all cores, over as many batches of the same size that lie in memory. Both in turns; a
ratio is of a pair that follow each other. The evaluation is that of the command: from listing the files to its figures,
with the trial of the model in another process. Its memory is the peak of a fresh process that evaluates all images or
a tenth of each class.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from benchmarks.figures import Figure, Report, cifar100
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.evaluate.classifier import Classifier
from ecd_deploy.pipelines.evaluate.evaluate import evaluate
from ecd_deploy.recipe.input import InputConfig

_ROUNDS = 5
_PART = 10
_PEAK = """
import re, sys
from pathlib import Path
from ecd_deploy import InputConfig, evaluate
evaluate(sys.argv[1], sys.argv[2], InputConfig.model_validate_json(sys.argv[3]))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
_NORMALISED = InputConfig(mean=(0.507, 0.487, 0.441), std=(0.267, 0.256, 0.276))


def measure() -> Report:
    """Measure both in turns."""
    test = cifar100() / "test"
    walls: list[tuple[float, float]] = []
    processor: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        student = build_student("resnet20", num_classes=100, in_channels=3).eval()
        torch.onnx.export(student, (torch.zeros(2, 3, 32, 32),), model, dynamic_shapes=({0: "batch"},), verbose=False)
        for _ in range(_ROUNDS):
            started, cpu = time.perf_counter(), time.process_time()
            found = evaluate(model, test, _NORMALISED)
            both = time.perf_counter() - started, time.process_time() - cpu
            alone = _alone(found.classifier, found.evaluation.images.images)
            walls.append((both[0], alone[0]))
            processor.append((both[1], alone[1]))
        part = _tenth(test, Path(folder) / "part")
        few, all_images = (_peak_mb(model, images) for images in (part, test))
    ratio, by_processor = (statistics.median(ours / theirs for ours, theirs in pairs) for pairs in (walls, processor))
    figures = [
        Figure(name="evaluation over onnxruntime alone, wall time", value=ratio, better="lower", unit="x", must=1.5),
        Figure(name="evaluation over onnxruntime alone, processor time", value=by_processor, better="lower", unit="x"),
        Figure(name="peak memory of 10,000 images over that of 1,000", value=all_images / few, better="lower", aim=1.2),
    ]
    setting = {"model": "resnet20, 100 classes, 3x32x32", "images": 10_000, "rounds": _ROUNDS}
    raw = {"wall": walls, "processor": processor, "peak_mb": {"1,000 images": few, "10,000 images": all_images}}
    return Report(benchmark="evaluation_speed", figures=figures, setting=setting, raw=raw)


def _tenth(source: Path, target: Path) -> Path:
    """A folder with links to every tenth image of each class."""
    for folder in sorted(source.iterdir()):
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[::_PART]:
            (target / folder.name / path.name).symlink_to(path.resolve())
    return target


def _peak_mb(model: Path, images: Path) -> float:
    """Peak resident memory, in 1e6 bytes, of a process that evaluates these images."""
    command = [sys.executable, "-c", _PEAK, str(model), str(images), _NORMALISED.model_dump_json(exclude_unset=True)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024 / 1e6


def _alone(classifier: Classifier, images: int) -> tuple[float, float]:
    """Wall and processor seconds of onnxruntime alone for as many images in the same batches."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = classifier.threads
    session = ort.InferenceSession(classifier.data, options, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).standard_normal((classifier.batch_size, 3, 32, 32)).astype(np.float32)
    name = classifier.expectation.input
    session.run(None, {name: batch})
    started, cpu = time.perf_counter(), time.process_time()
    for start in range(0, images, classifier.batch_size):
        session.run(None, {name: batch[: images - start]})
    return time.perf_counter() - started, time.process_time() - cpu
