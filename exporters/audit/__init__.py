"""Reads what was written, tensor by tensor, and says of which tensor of the student each was made."""

from __future__ import annotations

from ecd_deploy.exporters.audit.audit import audit_artefact, refuse
from ecd_deploy.exporters.audit.results import ArtefactAudit, AuditedTensor, Origin
from ecd_deploy.exporters.audit.sources import StudentSources, student_sources

__all__ = ["ArtefactAudit", "AuditedTensor", "Origin", "StudentSources", "audit_artefact", "refuse", "student_sources"]
