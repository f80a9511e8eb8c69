"""TOML documents: those that come with the package, by name, and the user's, by path."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ecd_deploy.errors import EcdDeployError, did_you_mean


@dataclass(frozen=True)
class BuiltinDocuments:
    """The TOML files of one folder of the package; each is known by its name without `.toml`.

    Attributes:
        kind: what an error calls one of them.
        package: in which the folder is.
        folder: its name.
        failure: the error of a name or a file that cannot be used.
    """

    kind: str
    package: str
    folder: str
    failure: type[EcdDeployError]

    def names(self) -> tuple[str, ...]:
        """Their names, sorted."""
        entries = (files(self.package) / self.folder).iterdir()
        return tuple(sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml")))

    def text(self, name: str) -> str:
        """The text of the one of this name.

        Raises:
            EcdDeployError: `failure`, with the names that there are.
        """
        if name not in (names := self.names()):
            raise self.failure(
                f"no {self.kind} '{name}'{did_you_mean(name, names)}; built-in names are {', '.join(names)}"
            )
        return (files(self.package) / self.folder / f"{name}.toml").read_text(encoding="utf-8")

    def text_or_file(self, name_or_path: str) -> str:
        """The text of the one of this name, or of the user's file.

        Raises:
            EcdDeployError: `failure`: there is neither, or the file cannot be read.
        """
        names = self.names()
        if name_or_path in names:
            return self.text(name_or_path)
        if not Path(name_or_path).is_file():
            raise self.failure(
                f"no {self.kind} '{name_or_path}': neither a file nor a built-in name"
                f"{did_you_mean(name_or_path, names)}; built-in names are {', '.join(names)}"
            )
        return read_text(Path(name_or_path), self.kind, self.failure)


def read_text(path: Path, kind: str, failure: type[EcdDeployError]) -> str:
    """Read a file of the user's; an error calls it a `kind`.

    Raises:
        EcdDeployError: `failure`: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise failure(f"cannot read {kind} {path}: {error}") from error


def parse_toml(text: str, where: str, failure: type[EcdDeployError]) -> dict[str, Any]:
    """Parse TOML; `where` names its origin in the error.

    Raises:
        EcdDeployError: `failure`: see `toml_values`.
    """
    try:
        return toml_values(text)
    except ValueError as error:
        raise failure(f"{where} is not valid TOML: {error}") from error


def toml_values(text: str) -> dict[str, Any]:
    """Parse TOML whose values JSON can hold.

    Raises:
        ValueError: it is no TOML, is nested too deeply, or holds a number of too many digits.
    """
    try:
        document = tomllib.loads(text)
        json.dumps(document, default=str)  # a hexadecimal number is parsed at any length, but cannot be written
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("a number in it has too many digits") from error
    return document
