from __future__ import annotations

from pathlib import Path

from ecd_deploy.files import sha256_bytes
from ecd_deploy.pipelines.record.manifest import FileEntry, read_manifest, write_manifest


def forge_entry(root: Path, name: str) -> None:
    """Record a file as it now is, wherever it is named, in a manifest whose own digest holds: by one who knows it."""
    manifest = read_manifest(root)
    content = (root / name).read_bytes()
    digest = sha256_bytes(content)
    files = {
        path: entry.model_copy(update={"parents": {**entry.parents, name: digest}}) if name in entry.parents else entry
        for path, entry in manifest.files.items()
    }
    files[name] = FileEntry(sha256=digest, bytes=len(content), parents=files[name].parents)
    write_manifest(root, manifest.model_copy(update={"files": files}))
