"""Devices by name: what they are, with sources, and what a model may cost on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ecd_deploy.documents import BuiltinDocuments, parse_toml
from ecd_deploy.errors import UsageError
from ecd_deploy.recipe.section import PositiveFloat, Section

BUILTIN_DEVICES = BuiltinDocuments("device", "ecd_deploy.pipelines.device", "devices", UsageError)


class DeviceFacts(Section):
    """What the manufacturer says; each source is an address."""

    processor: str
    machine: str = Field(description="What `uname -m` prints there.")
    cores: Annotated[int, Field(ge=1)]
    sources: tuple[str, ...] = Field(min_length=1)


class DeviceBudget(Section):
    """What a model may cost; this project's choice for a classifier beside other work, to be changed by the user."""

    p90_ms: PositiveFloat
    size_mb: PositiveFloat
    peak_memory_mb: PositiveFloat


class Device(Section):
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


def load_device(name: str) -> Device:
    """Read a device by its name.

    Raises:
        UsageError: there is none of this name.
    """
    document = parse_toml(BUILTIN_DEVICES.text(name), f"device {name}", UsageError)
    return Device.from_document({**document, "name": name}, f"device {name} cannot be used", UsageError)
