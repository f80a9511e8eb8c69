"""The user's own images, as files in folders: listed, judged, decoded, and kept decoded."""

from __future__ import annotations

from ecd_deploy.data.imagefolder.source import FolderSource

__all__ = ["FolderSource"]
