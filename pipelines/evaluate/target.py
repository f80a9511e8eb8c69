"""What a command is given as a model: an ONNX file, a run directory, or a bundle, packed or not."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ecd_deploy.errors import ArtefactError, DigestError, SchemaError, UsageError
from ecd_deploy.exporters import exporter_for
from ecd_deploy.exporters.onnx.file import OnnxFile, parse_onnx, read_onnx_file
from ecd_deploy.files import read_bytes, sha256_bytes
from ecd_deploy.pipelines.evaluate.expectation import Expectation, expect, image_port, refuse_keys
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.pipelines.record.artefacts import read_artefacts
from ecd_deploy.pipelines.record.names import MANIFEST_NAME, VALIDATION_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory, is_run, read_run
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation
from ecd_deploy.recipe.input import InputConfig

BUNDLE_SCHEMA: Final = 1
"""Of `bundle.json`."""
_DESCRIPTION_NAME: Final = "bundle.json"
_LABELS_NAME: Final = "labels.json"
_SUMS_NAME: Final = "SHA256SUMS"
_SUFFIXES: Final = (".tar.gz", ".tgz")
_MOST_BYTES: Final = 2_000_000_000


@dataclass(frozen=True)
class Target:
    """A model that a command was given.

    Attributes:
        file: its ONNX file.
        bundled: what its bundle says that it expects, if the file does not say so itself.
    """

    file: OnnxFile
    bundled: Expectation | None = None

    def expectation(self, config: InputConfig) -> Expectation:
        """What it expects, as its bundle says, or the file and the configuration.

        Raises:
            UsageError: something is missing, or the configuration contradicts.
            ArtefactError: it is no classifier of images.
        """
        if self.bundled is None:
            return expect(self.file, config)
        refuse_keys(config.model_fields_set, f"{self.file.path.parent} is a bundle")
        return self.bundled


def read_target(target: Path) -> Target:
    """Read the model of a file, a run directory or a bundle; of the latter two, its digest is checked.

    Of a run it is the first artefact that ships and that onnxruntime runs, or its fp32 ONNX file.

    Raises:
        UsageError: it is none of these.
        ArtefactError: the model is damaged or is no ONNX model.
    """
    if target.is_dir():
        if is_run(target):
            directory = read_run(target)
            return _of_run(directory, _file_of_run(directory))
        if (target / _DESCRIPTION_NAME).is_file():
            return _of_bundle(target, lambda name: _of_folder(target / name))
        raise UsageError(f"{target} is neither a run directory ({MANIFEST_NAME}) nor a bundle ({_DESCRIPTION_NAME})")
    if target.is_file() and target.name.endswith(_SUFFIXES):
        return _of_archive(target)
    return Target(read_onnx_file(target))


def read_shipped(target: Path, artefact: str) -> tuple[Target, ...]:
    """Read what `gate.artefact` means of a run directory, or the one model of another target; see `read_target`.

    Raises:
        UsageError: it means what onnxruntime does not run.
    """
    if not is_run(target):
        return (read_target(target),)
    directory = read_run(target)
    shipped = directory.read_json(VALIDATION_NAME, Validation).shipping(artefact)
    others = [entry.file for entry in shipped if not _by_onnxruntime(directory, entry.format)]
    if others:
        raise UsageError(
            f"gate.artefact is {artefact!r}: with --data onnxruntime runs what is decided about, and it does not run "
            f"{', '.join(others)}; name another format of the run"
        )
    return tuple(_of_run(directory, entry.file) for entry in shipped)


def read_counterpart(baseline: Path, format_name: str | None) -> Target:
    """Read what an artefact of this format is compared with; see `Validation.counterpart` and `read_target`."""
    if format_name is None or not is_run(baseline):
        return read_target(baseline)
    directory = read_run(baseline)
    validation = directory.read_json(VALIDATION_NAME, Validation)
    found = validation.counterpart(format_name, directory.recipe.gate.artefact)
    return _of_run(directory, found.file) if _by_onnxruntime(directory, found.format) else read_target(baseline)


def _of_run(directory: RunDirectory, file: str) -> Target:
    return Target(parse_onnx(directory.root / file, directory.read(file)))


def _file_of_run(directory: RunDirectory) -> str:
    shipped: tuple[ArtefactValidation, ...] = ()
    if VALIDATION_NAME in directory.manifest.files:
        shipped = directory.read_json(VALIDATION_NAME, Validation).shipping(directory.recipe.gate.artefact)
    runs = (entry.file for entry in shipped if _by_onnxruntime(directory, entry.format))
    return next(runs, None) or read_artefacts(directory).find("onnx").file


def _by_onnxruntime(directory: RunDirectory, format_name: str) -> bool:
    return exporter_for(format_name, directory.recipe.export).runtime == "onnxruntime"


def _of_archive(path: Path) -> Target:
    try:
        with tarfile.open(path) as archive:
            members: dict[str, tarfile.TarInfo] = {}
            total = 0
            for member in archive:
                total += member.size
                if total > _MOST_BYTES:
                    raise ArtefactError(f"{path} is not a bundle: it holds more than {_MOST_BYTES} bytes")
                if member.isfile():
                    members[member.name.partition("/")[2]] = member

            def read(name: str) -> bytes:
                if name not in members:
                    raise ArtefactError(f"{path} is not a bundle: it has no {name}")
                file = archive.extractfile(members[name])
                return b"" if file is None else file.read()

            return _of_bundle(path, read)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ArtefactError(f"{path} is not a bundle, or is cut off: {error}") from error


def _of_folder(path: Path) -> bytes:
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise ArtefactError(f"{path} is not of a bundle: it has more than {_MOST_BYTES} bytes")
    return read_bytes(path)


def _of_bundle(path: Path, read: Callable[[str], bytes]) -> Target:
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in _text(path, read(_SUMS_NAME)))}

    def checked(name: str) -> bytes:
        data = read(name)
        if sums.get(name) != sha256_bytes(data):
            raise DigestError(f"{path}: {name} is not what was packed: its SHA-256 is not that of {_SUMS_NAME}")
        return data

    try:
        description = json.loads(checked(_DESCRIPTION_NAME))
        model, version = str(description["model"]), description.get("schema_version")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtefactError(f"{path} is not a bundle: {_DESCRIPTION_NAME} names no model") from error
    if version != BUNDLE_SCHEMA:
        raise SchemaError(
            f"{path} is not a bundle of this version of ecd-deploy: the schema_version of {_DESCRIPTION_NAME} is "
            f"{version!r}, and {BUNDLE_SCHEMA} is read. Pack it anew, or use the version that made it"
        )
    if not model or set(model) & set("/\\\0") or model == "..":
        raise ArtefactError(f"{path} is not a bundle: {_DESCRIPTION_NAME} names a model outside of it, {model!r}")
    file = parse_onnx(path / model, checked(model))
    if file.metadata is not None:
        return Target(file)
    try:
        labels = tuple(map(str, json.loads(checked(_LABELS_NAME))))
        return Target(file, _described(file, description, labels))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtefactError(f"{path} is not a bundle: what the model expects cannot be read from it") from error


def _described(file: OnnxFile, description: dict[str, Any], labels: tuple[str, ...]) -> Expectation:
    port, names = image_port(file), {output.name for output in file.outputs}
    if description["scores"] not in ("logits", "probabilities") or description["output"] not in names:
        raise ValueError("other scores or another output than the model's")
    if description["input"] != port.name or description["preprocessing"]["dtype"] != port.dtype:
        raise ValueError("another input than the model's")
    return Expectation(
        input=port.name,
        output=description["output"],
        batch=None if description["batch"] is None else int(description["batch"]),
        preprocessing=Preprocessing.model_validate(description["preprocessing"]),
        classes=labels,
        scores=description["scores"],
        source="the bundle",
    )


def _text(path: Path, data: bytes) -> list[str]:
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path} is not a bundle: {_SUMS_NAME} is not text") from error
