"""Runs code as if some packages, or parts of the standard library, were not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.commands import Ended

TRAINING = ("accelerate", "matplotlib", "onnxscript", "sklearn", "tensorboard", "torch", "torchvision")
"""What the extra [train] brings."""

COMMAND = "from ecd_deploy.cli import main\nmain()"

_HIDE = """import sys
hidden = set({hidden!r})
class Without:
    def __init__(self, finder):
        self._finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self._finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self._finder, name)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
for name in hidden:
    sys.modules.pop(name, None)
"""


def code_without(hidden: Sequence[str], code: str) -> str:
    """Code whose imports find none of the hidden packages."""
    return _HIDE.format(hidden=tuple(hidden)) + code


def run_without(hidden: Sequence[str], code: str, arguments: Sequence[str | Path], *, cwd: Path) -> Ended:
    """Run code in a process of its own, whose imports find none of the hidden packages."""
    words = [sys.executable, "-c", code_without(hidden, code), *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)
