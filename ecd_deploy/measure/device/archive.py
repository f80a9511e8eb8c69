"""The device runner as it is shipped: one file that Python runs, with the sources in it as they are."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from ecd_deploy.files import stored_zip

RUNNER_NAME: Final = "device_runner.pyz"
_START = b"import sys\n\nfrom runner.command import main\n\nsys.exit(main())\n"


def runner_archive() -> bytes:
    """The runner; the same bytes each time."""
    folder = files("ecd_deploy.measure.device") / "runner"
    sources = {f"runner/{file.name}": file.read_bytes() for file in folder.iterdir() if file.name.endswith(".py")}
    return stored_zip({"__main__.py": _START, **dict(sorted(sources.items()))})
