"""Images of the Dockerfile without a daemon: mmdebstrap makes the base, buildah the rest, in `build/images`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ecd_deploy
from benchmarks.images.archive import Image, read_image

ROOT = Path(__file__).parents[2]
NEEDED = {"buildah": "buildah", "bwrap": "bubblewrap", "mmdebstrap": "mmdebstrap"}
"""Commands, each with Debian's package that has it."""
_EMULATION = {"arm64": Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")}
_SLIM = ("doc/*", "man/*", "locale/*", "info/*")
_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "TORCH")


class CannotBuild(Exception):
    """What is missing here, and how it is had."""


def check_tools() -> None:
    """See that the commands are there.

    Raises:
        CannotBuild: they are not, or the user is not root.
    """
    if missing := [package for command, package in NEEDED.items() if shutil.which(command) is None]:
        raise CannotBuild(f"images are built with {', '.join(missing)}: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise CannotBuild("images are built in a chroot, which needs root")


@dataclass(frozen=True)
class Builder:
    """Buildah on a storage of its own.

    Attributes:
        folder: what is built goes there.
        driver: "overlay", or "vfs", which copies each layer, where an overlay cannot be mounted.
    """

    folder: Path
    driver: str

    @classmethod
    def in_folder(cls, folder: Path) -> Builder:
        """With the faster driver that works there."""
        folder.mkdir(parents=True, exist_ok=True)
        overlay = cls(folder, "overlay")
        works = subprocess.run([*overlay.command, "info"], capture_output=True, check=False).returncode == 0
        return overlay if works else cls(folder, "vfs")

    @property
    def command(self) -> tuple[str, ...]:
        """Buildah, on this storage."""
        places = ("--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run"))
        return ("buildah", *places, "--storage-driver", self.driver)

    def base(self, architecture: str) -> str:
        """The name of the base: `BASE` of the environment, or Debian's packages without their documentation.

        Raises:
            CannotBuild: the kernel does not run programs of this architecture.
        """
        emulation = _EMULATION.get(architecture)
        if emulation is not None and not emulation.exists():
            raise CannotBuild(f"{architecture} needs its emulation ({emulation}): apt-get install qemu-user-static")
        if base := os.environ.get("BASE"):
            return base
        name = f"localhost/debian-{architecture}"
        if subprocess.run([*self.command, "inspect", name], capture_output=True, check=False).returncode != 0:
            files = self.folder / "debian.tar"
            _run(
                "mmdebstrap", "--quiet", "--variant=apt", f"--architectures={architecture}", *_slim(), "bookworm", files
            )
            with self._container("scratch") as container:
                _run(*self.command, "add", "--quiet", container, files, "/")
                _run(*self.command, "config", "--arch", architecture, container)
                _run(*self.command, "commit", "--quiet", container, name)
            files.unlink()
        return name

    def build(self, target: str, architecture: str, base: str, context: Path) -> str:
        """Build one image of the Dockerfile, and return its name; pip's settings are those of the environment."""
        name = f"localhost/ecd-deploy-{target}-{architecture}"
        revision = _run("git", "-C", ROOT, "rev-parse", "HEAD")
        arguments = [("BASE", base), ("REVISION", revision), ("VERSION", ecd_deploy.__version__)]
        arguments += [(key, value) for key in _PIP if (value := os.environ.get(key))]
        options = [option for key, value in arguments for option in ("--build-arg", f"{key}={value}")]
        if certificates := os.environ.get("PIP_CERT"):
            options += ["--secret", f"id=ca,src={certificates}"]
        if (wheels := os.environ.get("PIP_FIND_LINKS")) and Path(wheels).is_dir():
            options += ["--volume", f"{wheels}:{wheels}:ro"]
        # The format of Docker: OCI's has no health check.
        options += ["--isolation", "chroot", "--format", "docker", "--layers", "--arch", architecture]
        _run(*self.command, "build", *options, "--target", target, "--tag", name, context)
        return name

    def read(self, name: str) -> Image:
        """What an image is made of."""
        archive = self.folder / "image.tar"
        archive.unlink(missing_ok=True)
        _run(*self.command, "push", "--quiet", name, f"docker-archive:{archive}")
        try:
            return read_image(archive)
        finally:
            archive.unlink()

    @contextmanager
    def mounted(self, name: str) -> Iterator[Path]:
        """The root of an image's files."""
        with self._container(name) as container:
            yield Path(_run(*self.command, "mount", container))

    @contextmanager
    def _container(self, name: str) -> Iterator[str]:
        container = _run(*self.command, "from", "--quiet", "--pull-never", name)
        try:
            yield container
        finally:
            _run(*self.command, "rm", container)


def copy_context(folder: Path) -> None:
    """Copy the files that git knows, and plant secrets beside them that no image may have."""
    for name in filter(None, _run("git", "-C", ROOT, "ls-files", "-z").split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    for place in (folder, folder / "ecd_deploy", folder / "ecd_deploy" / "recipe" / "recipes"):
        (place / ".env").write_text("TOKEN=planted\n", encoding="ascii")
        (place / ".git").mkdir()
        (place / ".git" / "config").write_text("planted\n", encoding="ascii")


def _slim() -> Sequence[str]:
    """Options of mmdebstrap that leave out what Docker's slim images leave out, licences kept."""
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{pattern}" for pattern in _SLIM]
    merged = ("--include=usr-is-merged", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
    return (*excluded, "--dpkgopt=path-include=/usr/share/doc/*/copyright", *merged)


def _run(*command: str | Path) -> str:
    """Run a command and return what it printed.

    Raises:
        CannotBuild: it failed; the end of its messages says why.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuild(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout.strip()
