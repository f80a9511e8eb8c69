"""`ecd-deploy profile`: a run directory or a bare model, here or on devices, with the call's own conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ecd_deploy.errors import ArtefactError, EcdDeployError, UsageError
from ecd_deploy.files import sha256_bytes, write_atomic
from ecd_deploy.measure.predictors.untrusted import Limits, check_untrusted
from ecd_deploy.pipelines.device.budgets import Device, load_device
from ecd_deploy.pipelines.device.remote import measure_on_host, measure_on_hosts
from ecd_deploy.pipelines.record.names import PROFILES_FOLDER, VALIDATION_NAME
from ecd_deploy.pipelines.record.profile import Profile, describe
from ecd_deploy.pipelines.record.run_directory import open_run
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.pipelines.steps.measure import measure, profile_bytes, profile_name
from ecd_deploy.recipe.profile import ProfileConfig


@dataclass(frozen=True)
class Conditions:
    """What the call says about the measurement; None leaves it to the recipe."""

    device: Device | None
    threads: int | None
    cpus: tuple[int, ...] | None
    memory_mb: int | None
    provider: str | None = None

    @classmethod
    def read(
        cls,
        *,
        device: str | None,
        threads: int | None,
        cpus: str | None,
        memory_mb: int | None,
        provider: str | None = None,
    ) -> Self:
        """Check the words of the command line.

        Raises:
            UsageError: there is no such device, or the CPUs are not numbers.
        """
        found = None if device is None else load_device(device)
        if threads is None and found is not None:
            threads = found.threads
        return cls(found, threads, _parse_cpus(cpus), memory_mb, provider)

    def apply(self, config: ProfileConfig) -> ProfileConfig:
        """A `[profile]` section under these conditions.

        Raises:
            UsageError: a value cannot be used.
        """
        given: dict[str, Any] = {"threads": self.threads, "cpus": self.cpus, "memory_mb": self.memory_mb}
        given |= {"provider": self.provider}
        given = {name: value for name, value in given.items() if value is not None}
        return ProfileConfig.from_document(
            {**config.model_dump(), **given}, "these conditions cannot be used", UsageError
        )


def profile_target(
    target: Path,
    conditions: Conditions,
    *,
    choice: str | None = None,
    shape: tuple[int, int] | None = None,
    output: Path | None = None,
) -> list[Profile]:
    """Measure what a run ships, or the artefacts of a choice, or an ONNX or .ort file, on this host.

    Where the ONNX file leaves them free, `shape` is height and width of its images.

    Raises:
        UsageError: the target or a condition cannot be used.
        ArtefactError: the model cannot be read or run.
    """
    if _is_file(target):
        found = [
            profile_bytes(target.name, _foreign(target, choice, shape), conditions.apply(ProfileConfig()), Limits())
        ]
    else:
        if shape is not None:
            raise UsageError("--shape: of an ONNX file only; a run's artefacts have their size")
        with open_run(target) as directory:
            validation = directory.read_json(VALIDATION_NAME, Validation)
            if output is not None and len(validation.shipping(choice or directory.recipe.gate.artefact)) > 1:
                raise UsageError("--json takes one result: name one --format")
            config = conditions.apply(directory.recipe.profile)
            found = list(measure(directory, validation, config, choice))
    for entry in found:
        _write(entry, output)
    return found


def profile_hosts(
    target: Path,
    conditions: Conditions,
    hosts: Sequence[str],
    console: Console,
    *,
    python: str,
    timeout: float,
    choice: str | None = None,
    shape: tuple[int, int] | None = None,
    output: Path | None = None,
) -> list[Profile]:
    """Measure on devices at once, over ssh: what a run ships, an artefact of it, or an ONNX or .ort file.

    In a run directory each result is kept in `profiles/`; that of a single host is also where the gate looks for it.

    Raises:
        UsageError: the target or a condition cannot be used.
        ArtefactError: a device failed; the results of the others are kept.
    """
    if _is_file(target):
        model = _foreign(target, choice, shape)
        found, errors = _measure_all(target.name, model, conditions, ProfileConfig(), hosts, console, python, timeout)
    else:
        if shape is not None:
            raise UsageError("--shape: of an ONNX file only; a run's artefacts have their size")
        with open_run(target) as directory:
            validation = directory.read_json(VALIDATION_NAME, Validation)
            shipped = validation.shipping(choice or directory.recipe.gate.artefact)
            if len(shipped) > 1:
                raise UsageError("--host measures one artefact at a time: name it with --format")
            file = shipped[0].file
            config, model = directory.recipe.profile, directory.read(file)
            found, errors = _measure_all(file, model, conditions, config, hosts, console, python, timeout)
            for host, entry in found.items():
                directory.write_json(f"{PROFILES_FOLDER}/{_file_name(host)}.json", entry)
            if len(hosts) == 1:
                for entry in found.values():
                    directory.write_json(profile_name(directory, validation, shipped[0].format), entry)
    for entry in found.values():
        _write(entry, output)
    if errors:
        raise ArtefactError("\n".join(str(error) for error in errors))
    return list(found.values())


def _is_file(target: Path) -> bool:
    """Whether a model is meant, also one that is not there."""
    return target.is_file() or target.suffix in (".onnx", ".ort")


def _foreign(path: Path, choice: str | None, shape: tuple[int, int] | None) -> bytes:
    """An ONNX or .ort file with all its weights inside, which was tried where it can do no harm."""
    if choice is not None:
        raise UsageError(f"--format {choice}: {path} is one file; formats are those of a run directory")
    from ecd_deploy.exporters.onnx.file import read_onnx_file, with_shape

    model = with_shape(read_onnx_file(path), shape)
    check_untrusted(model, path.name)
    return model


def _measure_all(
    file: str,
    model: bytes,
    conditions: Conditions,
    config: ProfileConfig,
    hosts: Sequence[str],
    console: Console,
    python: str,
    timeout: float,
) -> tuple[dict[str, Profile], list[EcdDeployError]]:
    if len(set(hosts)) != len(hosts):
        raise UsageError("--host names a host twice")
    device = conditions.device
    place = "device" if device is None else device.name
    settings = conditions.apply(config)
    states = dict.fromkeys(hosts, "waiting")
    with Live(_table(states), console=console, transient=not console.is_terminal) as live:

        def report(host: str, state: str) -> None:
            states[host] = state
            live.update(_table(states))

        results = measure_on_hosts(
            hosts,
            lambda host: measure_on_host(
                host,
                model,
                settings,
                python=python,
                machine=None if device is None else device.facts.machine,
                timeout=timeout,
                report=report,
            ),
        )
    errors = [entry for entry in results.values() if isinstance(entry, EcdDeployError)]
    found = {
        host: describe(file, model, entry, place)
        for host, entry in results.items()
        if not isinstance(entry, EcdDeployError)
    }
    return found, errors


def _table(states: dict[str, str]) -> Table:
    table = Table("host", "state", box=None, header_style="bold")
    for host, state in dict(states).items():
        table.add_row(host, state)
    return table


def _write(found: Profile, output: Path | None) -> None:
    if output is not None:
        write_atomic(output, found.to_json())


def _file_name(host: str) -> str:
    name = "".join(letter if letter.isalnum() or letter in "-._@" else "_" for letter in host).lstrip(".")
    # Two hosts whose names differ in what a file name cannot hold keep two files.
    return name if name == host else f"{name}-{sha256_bytes(host.encode())[:8]}"


def _parse_cpus(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not all(part.isdecimal() for part in text.split(",")):
        raise UsageError(f"--cpus {text}: expected numbers with commas, for example 0,1")
    return tuple(int(part) for part in text.split(","))
