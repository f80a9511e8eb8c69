"""`python -m benchmarks.gpu pack|verify|check`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ecd_deploy.errors import EcdDeployError


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


if __name__ == "__main__":
    try:
        main.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EcdDeployError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
