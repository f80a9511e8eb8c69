"""The command that measures: `profile`."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.ending import console
from ecd_deploy.cli.model_options import parse_shape
from ecd_deploy.errors import Inconclusive, UsageError


@click.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="RUN_DIR|MODEL.onnx")
@click.option("--format", "choice", metavar="NAME|all", help="Measure this artefact of the run; default: what ships.")
@click.option("--shape", metavar="HEIGHTxWIDTH", help="Size of MODEL.onnx's input where it leaves it free.")
@click.option("--device", metavar="NAME", help="Use this device's number of threads, and compare with its budget.")
@click.option("--host", "hosts", multiple=True, metavar="USER@HOST", help="Measure on this host, over ssh; repeatable.")
@click.option("--python", default="python3", show_default=True, help="The hosts' Python.")
@click.option("--timeout", type=click.FloatRange(min=1), default=600, show_default=True, help="Seconds for each host.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of onnxruntime; default: the recipe's, or 1.")
@click.option("--cpus", metavar="0,1", help="Pin the measurement to these CPUs (constrained host).")
@click.option("--memory", type=click.IntRange(min=1), metavar="MB", help="Limit its data memory (constrained host).")
@click.option(
    "--provider",
    metavar="NAME[:KEY=VALUE,...]",
    help="onnxruntime's execution provider there, such as XNNPACK; default: the recipe's, or the CPU.",
)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also write the whole result to this file.")
def profile(
    target: Path,
    choice: str | None,
    shape: str | None,
    device: str | None,
    hosts: tuple[str, ...],
    python: str,
    timeout: float,
    threads: int | None,
    cpus: str | None,
    memory: int | None,
    provider: str | None,
    output: Path | None,
) -> None:
    """Measure latency, memory, throughput and time by layer.

    What is measured is the artefact of RUN_DIR that ships, or an ONNX or .ort file, with its cold start.
    """
    from ecd_deploy.cli.text.profile import print_budget, print_profile
    from ecd_deploy.pipelines.device.command import Conditions, profile_hosts, profile_target

    if len(hosts) > 1 and output is not None:
        raise UsageError("--json takes one result: give one --host, or a run directory, which keeps all results")
    conditions = Conditions.read(device=device, threads=threads, cpus=cpus, memory_mb=memory, provider=provider)
    size, terminal = parse_shape(shape), console()
    if hosts:
        found = profile_hosts(
            target,
            conditions,
            hosts,
            terminal,
            python=python,
            timeout=timeout,
            choice=choice,
            shape=size,
            output=output,
        )
    else:
        found = profile_target(target, conditions, choice=choice, shape=size, output=output)
    for entry in found:
        print_profile(entry, terminal)
        if conditions.device is not None:
            print_budget(entry, conditions.device, terminal)
    reasons = [f"{entry.place}: {reason}" for entry in found for reason in entry.latency.reasons]
    if reasons:
        raise Inconclusive("this measurement is invalid: " + "; ".join(reasons))
