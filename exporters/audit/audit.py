"""The audit of one artefact: every tensor traced, every byte accounted for, the teacher side searched for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.audit.matching import Match, is_constant, match, scale_fits
from ecd_deploy.exporters.audit.numbers import number_findings
from ecd_deploy.exporters.audit.results import ArtefactAudit, AuditedTensor, Origin
from ecd_deploy.exporters.audit.sources import StudentSources
from ecd_deploy.exporters.contract import Exporter
from ecd_deploy.exporters.files.contents import FileTensor
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split import SplitStudent

_LISTED = 10
_LEAST_SOUGHT = 8
# What exporters take over as it is; the rest says how the file was made.
_GIVEN = ("student", "classes", "input_shape", "resize", "mean", "std", "recipe_digest", "package_version")


def audit_artefact(
    data: bytes, exporter: Exporter, student: SplitStudent, sources: StudentSources, metadata: ArtefactMetadata
) -> ArtefactAudit:
    """Trace every tensor of a written file to the student, and look for anything else.

    Args:
        data: the file.
        exporter: of its format; it reads the contents.
        student: that it was made of.
        sources: of `student_sources`; made once for all formats.
        metadata: as read from the file; compared here with those that the exporter was given.

    Returns:
        The audit, passed or not: to refuse the file is up to the caller.
    """
    names = _auxiliary_names(student)
    findings = list(_metadata_findings(student, sources.metadata, metadata))
    findings += [f"the bytes name {name} of the teacher side" for name in names if name.encode() in data]
    try:
        contents = exporter.contents(data)
    except ExportError as error:
        return _result(exporter.format, data, [*findings, str(error)])
    if contents is None:
        reason = (
            f"the tensors of format '{exporter.format}' were not traced to the student, as its exporter has no reader "
            "(`contents` returns None): implement `contents(data)`"
        )
        return _result(exporter.format, data, findings, not_done_reason=reason, names_sought=len(names))
    traced = _traced(contents.tensors, sources)
    digests = _auxiliary_digests(student)
    findings += contents.problems
    findings += [
        f"{tensor.name}, {tensor.array.dtype} {list(tensor.array.shape)}, comes from no tensor of the student"
        for tensor in contents.tensors
        if tensor.name not in traced
    ]
    for tensor in contents.tensors:
        if is_constant(tensor.array):  # zeros are zeros, whose they may be
            continue
        digest = sha256_bytes(np.ascontiguousarray(tensor.array).tobytes())
        if digest in digests:
            findings.append(f"{tensor.name} has the bytes of {digests[digest]}")
    # Integers bring the scales of activations with them, and these come from calibration.
    calibrated = any(tensor.affine is not None for tensor in contents.tensors)
    findings += number_findings(contents, traced, sources.numbers, calibrated=calibrated)
    # What runs the file may keep a tensor twice under one name, or its padding: the rest is what was not read as one.
    limit = contents.overhead_limit + 2 * len(metadata.model_dump_json())
    if len(contents.overhead) > limit:
        findings.append(f"{len(contents.overhead)} bytes are no tensor, at most {limit} are expected")
    return _result(
        exporter.format,
        data,
        findings,
        tensor_bytes=sum(tensor.array.nbytes for tensor in contents.tensors),
        overhead_bytes=len(contents.overhead),
        overhead_limit=limit,
        names_sought=len(names),
        digests_sought=len(digests),
        tensors=tuple(_described(tensor, traced.get(tensor.name)) for tensor in contents.tensors),
    )


def refuse(audit: ArtefactAudit) -> None:
    """Refuse an artefact that did not pass.

    Raises:
        ExportError: with what was found.
    """
    if not audit.passed:
        shown = "\n".join(f"  {finding}" for finding in audit.findings)
        raise ExportError(f"the {audit.format} artefact is not the student and nothing else:\n{shown}")


def _traced(tensors: tuple[FileTensor, ...], sources: StudentSources) -> dict[str, Match]:
    traced: dict[str, Match] = {}
    by_name = {tensor.name: tensor for tensor in tensors}
    for tensor in tensors:
        if not tensor.role.startswith("scale of "):
            found = match(tensor, sources)
            if found is not None:
                traced[tensor.name] = found
    for tensor in tensors:
        if tensor.role.startswith("scale of "):
            name = tensor.role.removeprefix("scale of ")
            quantised, origin = by_name[name], traced.get(name)
            if origin is None or origin.values is None or quantised.affine is None:
                continue
            axis = quantised.affine.axis if origin.values.ndim > 1 else 0
            if scale_fits(tensor.array, origin.values, axis) or quantised.array.dtype == np.int32:
                traced[tensor.name] = Match(Origin.SCALE, name)
    return traced


def _auxiliary_names(student: SplitStudent) -> tuple[str, ...]:
    """The auxiliary modules' names, as prefixes, but for those that the student's own tensors or classes have."""
    own = " ".join(record.name for record in student.proof.student_tensors)
    words = [f"{name}." for name in student.proof.auxiliary] + [student.proof.joint_model]
    words += ["DynamicConv2d", "mixing_weights"] if student.proof.auxiliary else []
    kinds = {type(module).__name__ for module in student.module.modules()}
    return tuple(word for word in words if word not in kinds and not re.search(rf"\b{re.escape(word)}", own))


def _auxiliary_digests(student: SplitStudent) -> Mapping[str, str]:
    own = {record.sha256 for record in student.proof.student_tensors}
    return {
        record.sha256: record.name
        for record in student.proof.auxiliary_tensors
        if record.sha256 not in own and int(np.prod(record.shape)) >= _LEAST_SOUGHT
    }


def _metadata_findings(student: SplitStudent, given: ArtefactMetadata, found: ArtefactMetadata) -> Iterator[str]:
    if found.student_digest != student.proof.student_digest:
        yield f"the metadata are of another student: {found.student_digest}"
    for field in _GIVEN:
        if getattr(found, field) != getattr(given, field):
            yield f"the metadata's {field} is not the one that was given"


def _described(tensor: FileTensor, found: Match | None) -> AuditedTensor:
    return AuditedTensor(
        name=tensor.name,
        dtype=str(tensor.array.dtype),
        shape=tensor.array.shape,
        bytes=tensor.array.nbytes,
        origin=None if found is None else found.origin,
        source=None if found is None else found.source,
        error=None if found is None else found.error,
    )


def _result(format_name: str, data: bytes, findings: list[str], **counts: object) -> ArtefactAudit:
    shown = findings[:_LISTED] + ([f"and {len(findings) - _LISTED} more"] if len(findings) > _LISTED else [])
    document = {
        "format": format_name,
        "sha256": sha256_bytes(data),
        "bytes": len(data),
        "passed": not findings,
        "findings": tuple(shown),
        **counts,
    }
    return ArtefactAudit.model_validate(document)
