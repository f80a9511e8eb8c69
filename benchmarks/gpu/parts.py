# mypy: untyped-calls-exclude=torch

"""What a part of the check gets and what it leaves: one JSON file, rewritten as soon as more is known."""

from __future__ import annotations

import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from pydantic import SerializeAsAny

from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.record.environment import Environment, describe_environment
from ecd_deploy.records import Record

PartName = Literal["correctness", "engine", "speed", "few", "full"]
Precision = Literal["no", "bf16"]


class Findings(Record, ABC):
    """What a part found; each part has its own."""

    @abstractmethod
    def faults(self) -> tuple[str, ...]:
        """What went wrong, a sentence each; a part without any has passed."""

    @abstractmethod
    def summary(self) -> tuple[str, ...]:
        """Lines of the table."""


class Machine(Record):
    """Where it was measured.

    Attributes:
        device: name of the GPU, or "cpu".
        capability: its compute capability.
        cuda: version that torch was built for.
        cudnn: version.
        tf32_convolutions, tf32_products: torch's settings in this process, before a part changes them.
        environment: of the host.
    """

    device: str
    capability: tuple[int, int] | None
    cuda: str | None
    cudnn: int | None
    tf32_convolutions: bool
    tf32_products: bool
    environment: Environment


class PartRecord(Record):
    """The file of a part.

    Attributes:
        part: its name.
        tiny: whether this was a rehearsal, whose numbers mean nothing.
        finished: whether the part came to its end; False while it works and after it was killed.
        budget_seconds: its share.
        seconds: spent so far.
        error: what ended it early, with its traceback.
        findings: so far.
        machine: where.
    """

    part: PartName
    tiny: bool
    finished: bool
    budget_seconds: float
    seconds: float
    error: str | None
    findings: SerializeAsAny[Findings] | None
    machine: Machine

    @property
    def faults(self) -> tuple[str, ...]:
        """The error and what the findings say; empty if the part passed."""
        ended = () if self.error is None else (self.error.strip().rsplit("\n", maxsplit=1)[-1],)
        return ended + (() if self.findings is None else self.findings.faults())


@dataclass(frozen=True, kw_only=True)
class PartRun:
    """What a part is given.

    Attributes:
        device: to measure.
        tiny: whether to rehearse with minute sizes.
        seconds: its share.
        data: the folder of packed images.
        precision: that the evidence is trained in.
        keep: writes what is known so far.
        started: reading of `time.monotonic`.
    """

    device: torch.device
    tiny: bool
    seconds: float
    data: Path
    precision: Precision
    keep: Callable[[Findings], None]
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds of the share that are left; negative when it is overdrawn."""
        return self.seconds - (time.monotonic() - self.started)


def milliseconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """What one of several calls of the work takes on the device."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        return 1e3 * (time.perf_counter() - started) / repeats
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / repeats


def describe_machine(device: torch.device) -> Machine:
    """Read the device and the host; no names of hosts, users or folders."""
    is_cuda = device.type == "cuda"
    return Machine(
        device=torch.cuda.get_device_name(device) if is_cuda else platform.machine(),
        capability=torch.cuda.get_device_capability(device) if is_cuda else None,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if is_cuda else None,
        tf32_convolutions=torch.backends.cudnn.allow_tf32,
        tf32_products=torch.backends.cuda.matmul.allow_tf32,
        environment=describe_environment(),
    )


def write_record(folder: Path, record: PartRecord) -> None:
    """Write `PART.json`; what stood there is kept until the new file is whole.

    Raises:
        ArtefactError: the folder cannot be written.
    """
    write_atomic(folder / f"{record.part}.json", record.to_json())
