"""What lies in a bundle, and its bytes, which depend on nothing else."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import files as distribution_files
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.files import sha256_bytes, write_atomic
from ecd_deploy.measure.device.archive import RUNNER_NAME, runner_archive
from ecd_deploy.pipelines.bundle.description import BundleDescription

SUFFIX = ".tar.gz"
_DESCRIPTION_NAME = "bundle.json"
_SUMS_NAME = "SHA256SUMS"
_SCRIPT_NAME = "run.py"
_README = """{name}: {what}, which is right on {test_top1:.2%} of {test_images} test images.
{images} of them are here, with the {scores} that it must give.

    sha256sum --check SHA256SUMS
    python run.py
    python run.py IMAGE...

The last names the classes of photos of any size, which needs Pillow besides. run.py needs Python 3.8 or newer with
numpy and onnxruntime, and no network; the model was checked with onnxruntime {onnxruntime}. It compares files,
{scores}, accuracy and latency with where the bundle was made. --no-latency leaves the latency out, --timeout SECONDS
limits how long it is measured. Exit codes: 0 pass, 1 a limit is violated, 3 inconclusive (a busy machine, too few
samples, no time, another machine than the limits are for), 4 a damaged file or a model that does not run here.

labels.json has the names of the outputs in order; samples/ has the images (uint8, N x H x W x C) with their labels
and {scores}. The samples have the model's size already, and run.py resizes nothing. What the model takes of an image:
{framing}.
LICENSE is that of run.py and device_runner.pyz, a zip of sources that Python runs; model and images are under those of
their owners.
"""


@dataclass(frozen=True)
class CheckedSamples:
    """Images with what a model must give for them.

    Attributes:
        images: uint8 (N, C, H, W), RGB or grey, of the model's size.
        labels: int64 (N,).
        scores: float32 (N, outputs), in units of the description's `scores`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """An archive that was written."""

    path: Path
    sha256: str
    bytes: int
    description: BundleDescription


def archive_path(path: Path) -> Path:
    """Where the archive will be.

    Raises:
        UsageError: something is there already, or it is no `.tar.gz`.
    """
    if not path.name.endswith(SUFFIX):
        raise UsageError(f"--out {path}: a bundle is a {SUFFIX} file")
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already: remove it, or choose another --out")
    return path


def write_bundle(
    path: Path,
    description: BundleDescription,
    model: bytes,
    samples: CheckedSamples,
    classes: Sequence[str],
) -> Bundle:
    """Write the archive; the same contents give the same bytes.

    Args:
        path: of the archive.
        description: of what is in it.
        model: the ONNX file.
        samples: that the model is checked with.
        classes: names of the outputs, in order.

    Raises:
        ArtefactError: it cannot be written.
    """
    student = description.student
    readme = _README.format(
        what=description.model if student is None else f"{student} in {description.model}",
        images=len(samples.labels),
        framing=description.preprocessing.framing,
        **description.model_dump(),
    )
    device = files("ecd_deploy.measure.device")
    contents = {
        _SCRIPT_NAME: (device / "bundle_check.py").read_bytes(),
        RUNNER_NAME: runner_archive(),
        description.model: model,
        _DESCRIPTION_NAME: description.to_json(),
        "labels.json": (json.dumps(classes, ensure_ascii=False, indent=1) + "\n").encode(),
        "samples/images.npy": _npy(samples.images.transpose(0, 2, 3, 1)),
        "samples/labels.npy": _npy(samples.labels),
        "samples/scores.npy": _npy(samples.scores),
        "LICENSE": _licence(),
        "README.txt": readme.encode(),
    }
    sums = "".join(f"{sha256_bytes(contents[name])}  {name}\n" for name in sorted(contents))
    archive = _archive(description.name, {**contents, _SUMS_NAME: sums.encode()})
    return Bundle(path, write_atomic(path, archive), len(archive), description)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _licence() -> bytes:
    # Its place differs between a wheel, an editable installation and a source tree.
    for file in distribution_files("ecd-deploy") or ():
        if file.name == "LICENSE":
            return Path(str(file.locate())).read_bytes()
    raise ArtefactError("the installation of ecd-deploy lacks its LICENSE, which a bundle must hold: install it again")


def _archive(folder: str, contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(contents.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")  # without owner and time, so that the bytes are the same
            entry.size = len(content)
            entry.mode = 0o755 if name == _SCRIPT_NAME else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)
