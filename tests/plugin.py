"""The plug-in of docs/plugins.md, as if it were installed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ecd_deploy.recipe.export import ENTRY_POINT_GROUP

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"
_FILES = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def install_plugin(folder: Path, more: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Put the module and its entry points, and `more` of these, into a folder of sys.path; returns the module."""
    files = dict(_FILES.findall(PAGE.read_text(encoding="utf-8")))
    project = tomllib.loads(files["pyproject.toml"])["project"]
    module = folder / "npz_format.py"
    module.write_text(files[module.name])
    info = folder / f"npz_format-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = {**project["entry-points"][ENTRY_POINT_GROUP], **more}
    lines = (f"[{ENTRY_POINT_GROUP}]", *(f"{name} = {target}" for name, target in entries.items()))
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return module
