"""Devices by name: what they are, with sources, and what a model may cost on them."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ecd_deploy.errors import UsageError

_Positive = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class DeviceFacts(_Section):
    """What the manufacturer says; each source is an address."""

    processor: str
    machine: str = Field(description="What `uname -m` prints there.")
    cores: Annotated[int, Field(ge=1)]
    sources: tuple[str, ...] = Field(min_length=1)


class DeviceBudget(_Section):
    """What a model may cost; this project's choice for a classifier beside other work, to be changed by the user."""

    p90_ms: _Positive
    size_mb: _Positive
    peak_memory_mb: _Positive


class Device(_Section):
    """One file of `devices/`."""

    name: str
    description: str
    threads: Annotated[int, Field(ge=1)] = Field(description="Of onnxruntime: one core is left to the system.")
    int8_target: Literal["x86", "arm"]
    int8_vnni: bool = Field(default=True, description="Only read for x86.")
    facts: DeviceFacts
    budget: DeviceBudget

    def overrides(self) -> tuple[str, ...]:
        """The recipe's keys that this device decides, as `--set` takes them."""
        return (
            f'profile.device="{self.name}"',
            f"profile.threads={self.threads}",
            f'export.int8.target="{self.int8_target}"',
            f"export.int8.vnni={str(self.int8_vnni).lower()}",
            f"gate.p90_ms_max={self.budget.p90_ms}",
            f"gate.max_size_mb={self.budget.size_mb}",
            f"gate.peak_memory_mb_max={self.budget.peak_memory_mb}",
        )


def device_names() -> tuple[str, ...]:
    """The built-in devices, sorted."""
    folder = files("ecd_deploy.pipelines.device") / "devices"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_device(name: str) -> Device:
    """Read a device by its name.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in device_names():
        raise UsageError(f"no device '{name}'; there are {', '.join(device_names())}")
    text = (files("ecd_deploy.pipelines.device") / "devices" / f"{name}.toml").read_text(encoding="utf-8")
    try:
        return Device.model_validate({**tomllib.loads(text), "name": name}, strict=False)
    except ValidationError as error:
        raise UsageError(f"device {name} cannot be used: {error}") from error
