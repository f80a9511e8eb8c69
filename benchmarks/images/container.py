"""A command in an image, as a careful host runs it: uid 1000, a root that cannot be written to, no network.

Bubblewrap makes the container and util-linux's setpriv, which Debian's images have, becomes the user: neither needs a
daemon or control groups.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images.archive import Configuration

TEMPORARY = "/tmp"  # noqa: S108 - of the container
_NAMESPACES = ("--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--new-session", "--die-with-parent")


@dataclass(frozen=True)
class Container:
    """An image's root, and the folder of the host that it sees as /work."""

    root: Path
    configuration: Configuration
    volume: Path

    def run(
        self, *arguments: str, entrypoint: Sequence[str] | None = None, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """The entry point, or another one, with arguments."""
        entry = self.configuration.entrypoint if entrypoint is None else entrypoint
        command = [*self.wrapped(), *entry, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)

    def wrapped(self) -> list[str]:
        """What stands before a command."""
        user, _, group = self.configuration.user.partition(":")
        command = ["bwrap", "--ro-bind", str(self.root), "/", "--dev", "/dev", "--proc", "/proc"]
        command += ["--perms", "1777", "--tmpfs", TEMPORARY, "--bind", str(self.volume), "/work"]
        command += [*_NAMESPACES, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        command += ["--chdir", self.configuration.folder, "--clearenv"]
        for name, value in self.configuration.environment.items():
            command += ["--setenv", name, value]
        return [*command, "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]


def files_of(root: Path) -> frozenset[tuple[str, int, int]]:
    """Path, size and time of change of everything in a root: equal before and after, nothing was left behind."""
    return frozenset(
        (str(path), state.st_size, state.st_mtime_ns) for path in root.rglob("*") for state in (path.lstat(),)
    )
