"""What a run writes and reads as JSON or TOML: one base for all of it, and one account of what is wrong in it."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ecd_deploy.errors import ArtefactError, EcdDeployError, SchemaError, did_you_mean

_FAULTS_SHOWN = 20
_CHARACTERS_SHOWN = 100
_VERSION = "schema_version"


class Record(BaseModel):
    """A document or a part of one: never changed after it was made, and with no key but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def to_json(self) -> bytes:
        """The document as it is written to a file: indented, and ended by a newline."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes | str, complaint: str, failure: type[EcdDeployError] = ArtefactError) -> Self:
        """Read a document.

        Args:
            data: JSON.
            complaint: what the error begins with, for example "gate.json is not a gate report".
            failure: the error.

        Raises:
            EcdDeployError: `failure`, naming each key that cannot be used, its value, and the choices.
            SchemaError: in place of an ArtefactError, where the document is of another schema version.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise cls.refusal(error, complaint, failure) from error

    @classmethod
    def refusal(cls, error: ValidationError, complaint: str, failure: type[EcdDeployError]) -> EcdDeployError:
        """The error of a document, or of values given in Python, that cannot be used; see `from_json`."""
        other = next((detail for detail in error.errors() if detail["loc"] == (_VERSION,)), None)
        if other is not None and failure is ArtefactError:
            found, own = reprlib.repr(other["input"]), cls.model_fields[_VERSION].default
            return SchemaError(
                f"{complaint} of this version of ecd-deploy: its {_VERSION} is {found}, and {own} is read. Make it "
                "anew, or use the version that made it"
            )
        return failure("\n  ".join((f"{complaint}:", *_faults(error, cls))))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], complaint: str, failure: type[EcdDeployError]) -> Self:
        """Read what TOML was parsed to; see `from_json`."""
        try:
            text = json.dumps(document, default=str)
        except RecursionError as error:
            raise failure(f"{complaint}: it is nested too deeply") from error
        return cls.from_json(text, complaint, failure)


def _faults(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    details = error.errors()
    for detail in details[:_FAULTS_SHOWN]:
        path = ".".join(_shown(part) for part in detail["loc"]) or "the document"
        if detail["type"] == "extra_forbidden":
            choices = _known_keys(model, detail["loc"][:-1])
            hint = did_you_mean(str(detail["loc"][-1]), choices)
            yield f"{path}: unknown key{hint}; known keys are {', '.join(choices)}"
        elif detail["type"] == "missing":
            yield f"{path}: is missing"
        else:
            message = detail["msg"].removeprefix("Value error, ")
            value = detail["input"]
            yield f"{path}: {message}" + ("" if isinstance(value, dict) else f" (it is {reprlib.repr(value)})")
    if len(details) > _FAULTS_SHOWN:
        yield f"and {len(details) - _FAULTS_SHOWN} more"


def _shown(part: int | str) -> str:
    """A key that is safe to print: the document may come from anybody."""
    text = str(part)
    return text if text.isprintable() and len(text) <= _CHARACTERS_SHOWN else reprlib.repr(text)


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys of the section at a location; a number in it leads from an array to its elements."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    return tuple(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
