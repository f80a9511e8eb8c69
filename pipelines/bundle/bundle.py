"""`ecd-deploy bundle`: one archive with all that a device without a network needs to try a student."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import files as distribution_files
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data import DataSplits
from ecd_deploy.errors import ArtefactError, ExportError, GateFailed, RunDirectoryError, UsageError
from ecd_deploy.exporters import exporter_for
from ecd_deploy.files import sha256_bytes, write_atomic
from ecd_deploy.measure.accuracy import Top1
from ecd_deploy.measure.latency import RUNNER_NAME, runner_arguments, runner_source
from ecd_deploy.pipelines.device.budgets import load_device
from ecd_deploy.pipelines.record.artefacts import Artefact, ArtefactList
from ecd_deploy.pipelines.record.names import ARTEFACTS_NAME, VALIDATION_NAME
from ecd_deploy.pipelines.record.predictions import Samples, read_predictions
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.pipelines.steps.samples import largest_difference
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.records import Record
from ecd_deploy.split import SplitProof

SUFFIX = ".tar.gz"
_DESCRIPTION_NAME = "bundle.json"
_SUMS_NAME = "SHA256SUMS"
_SCRIPT_NAME = "run.py"
_GRACE_SECONDS = 300.0
_DEFAULT_DROP = 0.01
_LATENCY_LIMITS = ("p90_ms_max", "p95_ms_max", "p99_ms_max")
_README = """{name}: {student} in {model}, which is right on {test_top1:.2%} of {test_images} test images.
{images} of them are here, with the logits that it must give.

    sha256sum --check SHA256SUMS
    python run.py
    python run.py IMAGE...

The last names the classes of photos of any size, which needs Pillow besides. run.py needs Python 3.8 or newer with
numpy and onnxruntime, and no network; the model was checked with onnxruntime {onnxruntime}. It compares files, logits,
accuracy and latency with where the bundle was made. --no-latency leaves the latency out, --timeout SECONDS limits how
long it is measured. Exit codes: 0 pass, 1 a limit is violated, 3 inconclusive (a busy machine, too few samples, no
time, another machine than the limits are for), 4 a damaged file or a model that does not run here.

labels.json has the names of the logits in order; samples/ has the images (uint8, N x H x W x C) with their labels
and logits. The samples have the model's size already, and run.py resizes nothing. What the model takes of an image:
{framing}.
LICENSE is that of run.py, classify.py and device_runner.py; model and images are under those of their owners.
"""


class LatencyConditions(Record, allow_inf_nan=False):
    """How latency is measured there, and what limits it."""

    threads: int
    options: tuple[str, ...]
    """Of the device runner."""
    timeout_seconds: float
    device: str | None
    """Whose limits these are; None for any place."""
    machine: str | None
    """What `uname -m` prints on that device."""
    limits: dict[str, float]
    """In milliseconds, each decided by an upper bound."""


class BundleDescription(Record, allow_inf_nan=False):
    """`bundle.json`: what `run.py` compares with."""

    schema_version: Literal[1] = 1
    name: str
    student: str
    format: str
    model: str
    """File name of the artefact."""
    model_sha256: str
    student_digest: str
    recipe_digest: str
    onnxruntime: str
    """The version by which the artefact was checked; another one that reads the model will do."""
    test_images: int
    test_top1: float
    """Of this artefact on the whole test set, where the bundle was made."""
    preprocessing: str
    """inside: the model takes pixels; outside: they are divided by 255 and normalised by `mean` and `std`."""
    resize: int | None
    """What the shorter side of an image is scaled to before its middle is cut out; None: images stay as they are."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch: int | None
    """The only batch size that runs; None for any."""
    max_logit_difference: float
    """Largest difference from the logits of the PyTorch student."""
    min_same_class: float
    samples_correct: int
    """Samples that this artefact classifies correctly where the bundle was made."""
    max_drop: float
    """Largest part of the samples that may be lost against that."""
    latency: LatencyConditions


@dataclass(frozen=True)
class Bundle:
    """An archive that was written."""

    path: Path
    sha256: str
    bytes: int
    description: BundleDescription


def bundle_path(directory: RunDirectory, format_name: str, output: Path | None) -> Path:
    """Where the archive will be: `output`, or RECIPE-FORMAT.tar.gz in the working directory.

    Raises:
        UsageError: something is there already, it is no `.tar.gz`, or it lies in the run directory.
    """
    path = output or Path(f"{directory.recipe.name}-{format_name}{SUFFIX}")
    if not path.name.endswith(SUFFIX):
        raise UsageError(f"--out {path}: a bundle is a {SUFFIX} file")
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already: remove it, or choose another --out")
    if path.resolve().is_relative_to(directory.root.resolve()):
        raise UsageError(f"--out {path}: a run directory holds recorded files only; choose a place outside of it")
    return path


def find_artefact(directory: RunDirectory, format_name: str) -> tuple[Artefact, Top1]:
    """The artefact to pack and its accuracy on the test set.

    Raises:
        RunDirectoryError: the run is not exported or not validated.
        UsageError: the format was not exported, or is not run by onnxruntime.
        GateFailed: its logits were found to be others than the student's.
        ArtefactError: it was exported again after it was validated.
    """
    artefacts = directory.read_json(ARTEFACTS_NAME, ArtefactList).artefacts
    validation = directory.read_json(VALIDATION_NAME, Validation)
    config = directory.recipe.export
    fitting = [entry.format for entry in artefacts if exporter_for(entry.format, config).runtime == "onnxruntime"]
    if format_name not in fitting:
        known = format_name in {entry.format for entry in artefacts}
        why = "is not run by onnxruntime" if known else f"was not exported to {directory.root}"
        raise UsageError(f"--format {format_name}: it {why}; choices are {', '.join(fitting)}")
    artefact = next(entry for entry in artefacts if entry.format == format_name)
    entry = next((entry for entry in validation.artefacts if entry.sha256 == artefact.sha256), None)
    if entry is None or entry.top1 is None:
        raise ArtefactError(f"{artefact.file} was exported again after `validate`: run `validate` again")
    problem = entry.parity_problem(directory.recipe.gate.max_abs_diff)
    if problem is not None:
        raise GateFailed(f"not bundled: {artefact.file} is not the student: {problem}; see {VALIDATION_NAME}")
    return artefact, entry.top1.candidate


def bundle(directory: RunDirectory, proof: SplitProof, data: DataSplits, format_name: str, path: Path) -> Bundle:
    """Pack an artefact with samples of the test split, and what checks them; the same run gives the same bytes.

    Raises:
        EcdDeployError: see `find_artefact`.
        RunDirectoryError: the run was validated by a version that chose no samples.
        ArtefactError: a file was changed, or the archive cannot be written.
    """
    artefact, top1 = find_artefact(directory, format_name)
    exporter, model = exporter_for(format_name, directory.recipe.export), directory.read(artefact.file)
    metadata = exporter.read_metadata(model)
    samples = _samples(directory)
    images, labels = data.test.images[samples.indices], data.test.labels[samples.indices]
    found = exporter.open(model, _no_student)(data.normalisation.apply(images))
    budget = exporter.budget
    difference = largest_difference(directory.recipe.gate)
    if budget is not None:
        difference = budget.relative * float(np.abs(samples.logits).max())
    name = f"{directory.recipe.name}-{format_name}"
    description = BundleDescription(
        name=name,
        student=metadata.student,
        format=format_name,
        model=Path(artefact.file).name,
        model_sha256=artefact.sha256,
        student_digest=proof.student_digest,
        recipe_digest=directory.recipe.digest(),
        onnxruntime=version("onnxruntime"),
        test_images=top1.images,
        test_top1=top1.accuracy,
        preprocessing=metadata.preprocessing,
        resize=metadata.resize,
        mean=metadata.mean,
        std=metadata.std,
        batch=metadata.batch,
        max_logit_difference=difference,
        min_same_class=1.0 if budget is None else budget.agreement,
        samples_correct=int((found.argmax(axis=1) == labels).sum()),
        max_drop=_DEFAULT_DROP if directory.recipe.gate.max_drop is None else directory.recipe.gate.max_drop,
        latency=_latency_conditions(directory.recipe),
    )
    contents = {
        _SCRIPT_NAME: (files("ecd_deploy.measure.device") / "bundle_check.py").read_bytes(),
        "classify.py": (files("ecd_deploy.measure.device") / "classify.py").read_bytes(),
        RUNNER_NAME: runner_source(),
        description.model: model,
        _DESCRIPTION_NAME: description.to_json(),
        "labels.json": (json.dumps(data.classes, ensure_ascii=False, indent=1) + "\n").encode(),
        "samples/images.npy": _npy(images.transpose(0, 2, 3, 1)),
        "samples/labels.npy": _npy(labels),
        "samples/logits.npy": _npy(samples.logits),
        "LICENSE": _licence(),
        "README.txt": _README.format(images=len(labels), framing=metadata.framing, **description.model_dump()).encode(),
    }
    sums = "".join(f"{sha256_bytes(contents[name])}  {name}\n" for name in sorted(contents))
    archive = _archive(name, {**contents, _SUMS_NAME: sums.encode()})
    return Bundle(path, write_atomic(path, archive), len(archive), description)


def _latency_conditions(recipe: Recipe) -> LatencyConditions:
    # Where the run constrained its host to resemble a device, the device itself is not constrained.
    profile = recipe.profile.model_copy(update={"cpus": None, "memory_mb": None})
    limits = {name: getattr(recipe.gate, name) for name in _LATENCY_LIMITS}
    return LatencyConditions(
        threads=profile.threads,
        options=tuple(runner_arguments(profile)),
        timeout_seconds=profile.max_seconds + _GRACE_SECONDS,
        device=profile.device,
        machine=None if profile.device is None else load_device(profile.device).facts.machine,
        limits={name: limit for name, limit in limits.items() if limit is not None},
    )


def _samples(directory: RunDirectory) -> Samples:
    samples = next(iter(read_predictions(directory).values())).samples  # alike for every artefact
    if samples is None:
        raise RunDirectoryError(f"{directory.root} was validated by an older version: run `validate` again")
    if not len(samples.indices):
        raise ArtefactError("no bundle: rounding decides between the student's two largest logits on every test image")
    return samples


def _no_student() -> NoReturn:
    raise ExportError("a format that onnxruntime runs holds its own graph")


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
