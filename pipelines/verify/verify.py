"""`ecd-deploy verify`: is this run what its manifest says, and can it be made again?

Bytes are compared without torch, so that a damaged run is reported at once; only a whole, exported run loads it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ecd_deploy.errors import ArtefactError, EcdDeployError
from ecd_deploy.files import is_partial, sha256_bytes, sha256_file
from ecd_deploy.pipelines.record.artefacts import ArtefactList, AuditReport
from ecd_deploy.pipelines.record.manifest import FileEntry
from ecd_deploy.pipelines.record.names import (
    ARTEFACTS_NAME,
    AUDIT_NAME,
    LOCK_NAME,
    MANIFEST_NAME,
    ORIGINS,
    SIGNATURE_NAME,
    SPLIT_NAME,
    WEIGHTS_NAME,
)
from ecd_deploy.pipelines.record.run_directory import RunDirectory, is_linked, read_run
from ecd_deploy.split import SplitProof

_UNRECORDED = {MANIFEST_NAME, LOCK_NAME, SIGNATURE_NAME}
_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Difference:
    """One thing that is not as recorded."""

    file: str
    problem: str


def verify(root: Path) -> tuple[Difference, ...]:
    """Compare a run directory with its manifest; bytes first, and what they mean only if those are right.

    Returns:
        Every difference; empty where the run is whole.

    Raises:
        RunDirectoryError: it is none.
        ArtefactError: its manifest or recipe cannot be read.
    """
    directory = read_run(root)
    found = [difference for name, entry in directory.manifest.files.items() for difference in _bytes(root, name, entry)]
    found += [
        Difference(name, f"is not recorded in {MANIFEST_NAME}")
        for name in sorted(_present(root) - _UNRECORDED - set(directory.manifest.files))
    ]
    if directory.recipe.digest() != directory.manifest.recipe_digest:
        found.append(Difference(MANIFEST_NAME, f"its recipe digest is not that of {directory.recipe.name}"))
    return tuple(found) or tuple(_stale(directory)) or tuple(_meaning(directory))


def reproduce(root: Path) -> tuple[Difference, ...]:
    """Export the student again, in another process, folder and hash seed, and compare every byte.

    Raises:
        ArtefactError: the export fails there.
    """
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    command = [sys.executable, "-m", "ecd_deploy.pipelines.verify.export_again", str(root)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ArtefactError(f"exporting again took longer than {_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        cause = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        raise ArtefactError(f"exporting again failed: {cause[0]}")
    again: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    recorded = read_run(root).manifest.files
    return tuple(
        Difference(name, f"SHA-256 is {digest} when exported again, instead of {recorded[name].sha256}")
        for name, digest in again.items()
        if name not in recorded or recorded[name].sha256 != digest
    )


def _present(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if (path.is_file() or path.is_symlink()) and not is_partial(path)
    }


def _bytes(root: Path, name: str, entry: FileEntry) -> list[Difference]:
    path = root / name
    if is_linked(root, name):
        return [Difference(name, "is a link")]
    if not path.is_file():
        return [Difference(name, "is missing")]
    size = path.stat().st_size
    if size != entry.bytes:
        return [Difference(name, f"has {size} bytes instead of {entry.bytes}")]
    digest = sha256_file(path)
    return [] if digest == entry.sha256 else [Difference(name, f"SHA-256 is {digest} instead of {entry.sha256}")]


def _stale(directory: RunDirectory) -> Iterator[Difference]:
    for name in sorted(ORIGINS.keys() & directory.manifest.files.keys()):
        if (stale := directory.manifest.stale(name)) and stale.file == name:
            yield Difference(name, f"is derived from another {stale.source} than the one that is there")


def _meaning(directory: RunDirectory) -> list[Difference]:
    """Whether proof, student and artefacts belong together, all their bytes being as recorded."""
    if ARTEFACTS_NAME not in directory.manifest.files:
        return []
    try:
        proof = directory.read_json(SPLIT_NAME, SplitProof)
        exported = directory.read_json(ARTEFACTS_NAME, ArtefactList)
    except EcdDeployError as error:
        return [Difference(SPLIT_NAME, str(error))]
    from ecd_deploy.exporters import exporter_for

    found, classes = [], 0
    digests = {artefact.format: artefact.sha256 for artefact in exported.artefacts}
    for artefact in exported.artefacts:
        try:
            exporter = exporter_for(artefact.format, directory.recipe.export)
            metadata = exporter.read_metadata(directory.read(artefact.file))
        except EcdDeployError as error:
            found.append(Difference(artefact.file, str(error)))
            continue
        classes = len(metadata.classes)
        if metadata.student_digest != proof.student_digest:
            found.append(Difference(artefact.file, "comes from another student than the proved one"))
        source = exporter.derived_from
        # What a file was made from need not be among those that were written.
        if metadata.derived_from != (None if source is None else digests.get(source, artefact.derived_from)):
            found.append(Difference(artefact.file, f"is derived from another {source or 'file'} artefact"))
        if metadata.recipe_digest != directory.manifest.recipe_digest:
            found.append(Difference(artefact.file, "was exported with another recipe"))
    return found or [*_audit(directory, exported), *_proof(directory, proof, classes)]


def _audit(directory: RunDirectory, exported: ArtefactList) -> list[Difference]:
    try:
        report = directory.read_json(AUDIT_NAME, AuditReport)
    except EcdDeployError as error:
        return [Difference(AUDIT_NAME, str(error))]
    passed = {(audit.format, audit.sha256) for audit in report.audits if audit.passed}
    return [
        Difference(AUDIT_NAME, f"{artefact.file} did not pass, or other bytes were audited")
        for artefact in exported.artefacts
        if (artefact.format, artefact.sha256) not in passed
    ]


def builds_students() -> bool:
    """Whether students are built anew to check their proofs; without torch only their tensors' bytes are compared."""
    return find_spec("torch") is not None


def _proof(directory: RunDirectory, proof: SplitProof, classes: int) -> list[Difference]:
    if not builds_students():
        return list(_tensors(directory, proof))
    # The student is built: buffers that no file holds are proved too, and the weights must fit the recipe's network.
    from ecd_deploy.models import build_student
    from ecd_deploy.split import load_student

    try:
        name = directory.recipe.student.name
        module = build_student(name, num_classes=classes, in_channels=proof.example_shape[0])
        load_student(directory.read(WEIGHTS_NAME), module, proof)
    except EcdDeployError as error:
        return [Difference(SPLIT_NAME, str(error))]
    return []


def _tensors(directory: RunDirectory, proof: SplitProof) -> Iterator[Difference]:
    """Compare the bytes of the split student's tensors with the proof's; what no file holds is left out."""
    import safetensors

    try:
        found = dict(safetensors.deserialize(directory.read(WEIGHTS_NAME)))  # type: ignore[no-untyped-call]
    except (EcdDeployError, safetensors.SafetensorError) as error:
        yield Difference(WEIGHTS_NAME, str(error))
        return
    proved = {record.name: record for record in proof.student_tensors}
    for name, entry in sorted(found.items()):
        record = proved.get(name)
        if record is None or record.sha256 != sha256_bytes(entry["data"]) or list(record.shape) != entry["shape"]:
            yield Difference(WEIGHTS_NAME, f"{name} is not a tensor that was proved")
    for name, record in proved.items():
        if record.kind == "parameter" and name not in found:
            yield Difference(WEIGHTS_NAME, f"lacks {name}, which the proof lists")
