"""What an image is made of: its configuration and its layers, read from a docker archive without a daemon."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_NEVER = re.compile(r"(^|/)(\.env|\.git)(/|$)")
_LEFT_BEHIND = re.compile(
    rf"{_NEVER.pattern}|^(source|wheels|tmp|run/secrets|root/\.cache|var/lib/apt/lists)/."
    r"|(^|/)(site|dist)-packages/pip/|/build\.crt$"
)
_REMOVED = ".wh."
"""Begins the name of what stands for a file that a layer removes."""


@dataclass(frozen=True)
class Layer:
    """What one instruction added, unpacked."""

    instruction: str
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """How a container of the image starts."""

    user: str
    folder: str
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    healthcheck: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """An image, the layer of its base first.

    `left_behind` are paths that must not be in it: those of a checkout, and what only the build needs.
    """

    configuration: Configuration
    layers: tuple[Layer, ...]
    left_behind: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of all layers, unpacked."""
        return sum(layer.bytes for layer in self.layers)


def read_image(path: Path) -> Image:
    """Read a docker archive, `buildah push IMAGE docker-archive:PATH` or `docker save`."""
    with tarfile.open(path) as archive:
        manifest = _json(archive, "manifest.json")[0]
        document = _json(archive, manifest["Config"])
        instructions = [step["created_by"] for step in document["history"] if not step.get("empty_layer")]
        layers, left_behind = [], []
        for number, (name, instruction) in enumerate(zip(manifest["Layers"], instructions, strict=True)):
            layer, paths = _read_layer(archive, name, "base" if number == 0 else readable(instruction))
            layers.append(layer)
            rule = _LEFT_BEHIND if number else _NEVER
            left_behind += [path for path in paths if rule.search(path) and not Path(path).name.startswith(_REMOVED)]
    config = document["config"]
    configuration = Configuration(
        user=config.get("User", ""),
        folder=config.get("WorkingDir") or "/",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        environment=dict(pair.split("=", 1) for pair in config.get("Env") or ()),
        labels=config.get("Labels") or {},
        healthcheck=tuple((config.get("Healthcheck") or {}).get("Test") or ()),
    )
    return Image(configuration, tuple(layers), tuple(left_behind))


def readable(instruction: str) -> str:
    """At most 100 characters of an instruction, as the Dockerfile has it: without the shell and digests."""
    text = re.sub(r"^(\|\d+ .*?)?/bin/sh -c (#\(nop\) )?", "", instruction)
    text = re.sub(r"\b(dir|file|multi):[0-9a-f]{64}", "...", text)
    return " ".join(text.split())[:100]


def _read_layer(archive: tarfile.TarFile, name: str, instruction: str) -> tuple[Layer, list[str]]:
    with tarfile.open(fileobj=_file(archive, name), mode="r|*") as layer:
        members = [(member.name.removeprefix("./"), member.size) for member in layer if not member.isdir()]
    return Layer(instruction, len(members), sum(size for _, size in members)), [path for path, _ in members]


def _json(archive: tarfile.TarFile, name: str) -> Any:
    return json.load(_file(archive, name))


def _file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """A file of the archive, which names some by links.

    Raises:
        ValueError: that is a folder.
    """
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file
