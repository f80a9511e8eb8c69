"""Reads what was written, tensor by tensor, and says of which tensor of the student each was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

if TYPE_CHECKING:
    from ecd_deploy.exporters.audit.audit import audit_artefact, refuse
    from ecd_deploy.exporters.audit.results import ArtefactAudit, AuditedTensor, Origin
    from ecd_deploy.exporters.audit.sources import StudentSources, student_sources

__all__ = ["ArtefactAudit", "AuditedTensor", "Origin", "StudentSources", "audit_artefact", "refuse", "student_sources"]

_HOMES = {
    "ArtefactAudit": "ecd_deploy.exporters.audit.results",
    "AuditedTensor": "ecd_deploy.exporters.audit.results",
    "Origin": "ecd_deploy.exporters.audit.results",
    "StudentSources": "ecd_deploy.exporters.audit.sources",
    "audit_artefact": "ecd_deploy.exporters.audit.audit",
    "refuse": "ecd_deploy.exporters.audit.audit",
    "student_sources": "ecd_deploy.exporters.audit.sources",
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
