from __future__ import annotations

from pathlib import Path

from ecd_deploy.files import sha256_bytes
from ecd_deploy.pipelines.record.manifest import FileEntry, read_manifest, write_manifest


def forge_entry(root: Path, name: str) -> None:
    """Record a file as it now is, in a manifest whose own digest holds, as somebody would who knows of both."""
    manifest = read_manifest(root)
    content = (root / name).read_bytes()
    entry = FileEntry(sha256=sha256_bytes(content), bytes=len(content), parents=manifest.files[name].parents)
    write_manifest(root, manifest.model_copy(update={"files": {**manifest.files, name: entry}}))
