"""`python -m benchmarks.gpu pack|verify|check`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import get_args

import click

from benchmarks.gpu.parts import PartName, Precision
from ecd_deploy.errors import EcdDeployError, UsageError

PARTS: tuple[PartName, ...] = get_args(PartName)


@click.group(help=__doc__)
def main() -> None:
    """Nothing is done before the command is known."""


@main.command("pack")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with train/CLASS/*.png and test/CLASS/*.png.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path(".gpu"), show_default=True)
@click.option("--wheels/--no-wheels", default=True, help="Whether to fetch the missing packages' wheels too.")
def pack_command(images: Path, out: Path, wheels: bool) -> None:
    """Pack images, losslessly, and the wheels of what is missing on a bare machine."""
    from benchmarks.gpu.pack import pack
    from benchmarks.gpu.wheels import download

    manifest = pack(images, out)
    files = [out / f"{name}.zip" for name in manifest.archives]
    if wheels:
        files += download(out / "wheels")
    for file in files:
        click.echo(f"{file.stat().st_size / 2**20:6.2f} MiB  {file}")
    click.echo(f"{sum(part.images for part in manifest.parts)} images, read back bit-equal")


@main.command("verify")
@click.option("--data", type=click.Path(path_type=Path), default=Path(".gpu"), show_default=True)
def verify_command(data: Path) -> None:
    """Decode all packed images and compare their digests with the manifest's."""
    from benchmarks.gpu.pack import verify

    manifest = verify(data)
    for part in manifest.parts:
        click.echo(f"{part.archive}: {part.images} {part.split} images, SHA-256 {part.sha256}")


@main.command("check")
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Which parts, separated by commas.")
@click.option("--seconds", type=click.FloatRange(min=1), default=600.0, show_default=True, help="For all parts.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for a JSON file of each part.")
@click.option("--data", type=click.Path(path_type=Path), default=Path(".gpu"), show_default=True)
@click.option(
    "--precision", type=click.Choice(["no", "bf16"]), default="no", show_default=True, help="Of the evidence."
)
@click.option("--tiny", is_flag=True, help="Rehearse every part with minute sizes, on the CPU if there is no GPU.")
def check_command(parts: str, seconds: float, out: Path, data: Path, precision: Precision, tiny: bool) -> None:
    """Check and measure on a GPU; ends with 1 if a part failed."""
    if tiny:
        _interpret_triton()
    from benchmarks.gpu.check import CheckOptions, check

    chosen = [part for part in PARTS if part in parts.split(",")]
    if unknown := sorted(set(parts.split(",")) - set(PARTS)):
        raise UsageError(f"--parts: there is no part {', '.join(unknown)}; choices are {', '.join(PARTS)}")
    records = check(CheckOptions(parts=chosen, seconds=seconds, out=out, data=data, tiny=tiny, precision=precision))
    if tiny:
        click.echo("rehearsal: the numbers mean nothing")
    for record in records:
        verdict = "FAILED" if record.faults else "passed"
        click.echo(f"{record.part:12} {verdict}  {record.seconds:6.1f} of {record.budget_seconds:.0f} s")
        for line in () if record.findings is None else record.findings.summary():
            click.echo(f"    {line}")
        for fault in record.faults:
            click.echo(f"    FAILED: {fault}")
    if any(record.faults for record in records):
        sys.exit(1)


def _interpret_triton() -> None:
    """Let Triton's kernels run without a GPU; before they are imported, for that decides it."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")


if __name__ == "__main__":
    try:
        main.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EcdDeployError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
