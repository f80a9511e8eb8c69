"""The command that packs a student for a device."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--format", "format_name", help="Format of the artefact to pack; default: of what ships.")
@click.option("--out", type=click.Path(path_type=Path), help="A .tar.gz; default: RECIPE-FORMAT.tar.gz in this folder.")
def bundle(run_dir: Path, format_name: str | None, out: Path | None) -> None:
    """Pack an artefact of RUN_DIR for a device without a network.

    On the device, the archive's `python run.py` checks files, logits, accuracy on real test images and latency.
    """
    from ecd_deploy.pipelines.run import run_bundle

    packed = run_bundle(run_dir, format_name=format_name, output=out)
    click.echo(f"{packed.path}  {packed.bytes:,} bytes  sha256 {packed.sha256}")
    click.echo(f"on the device: tar -xf {packed.path.name} && cd {packed.description.name} && python run.py")
