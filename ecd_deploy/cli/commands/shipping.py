"""The command that packs a model for a device."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.model_options import DATA_HELP, refuse_without_data, size_override
from ecd_deploy.errors import UsageError


@click.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="RUN_DIR|MODEL.onnx")
@click.option("--format", "format_name", help="Format of the run's artefact to pack; default: of what ships.")
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER|FILE", help=DATA_HELP)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="TOML",
    help="With --data: [input] for what the model expects, [profile], and limits of latency.",
)
@click.option("--shape", metavar="HEIGHTxWIDTH", help="With --data: size of the input where the model leaves it free.")
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="With --data: set one value of TOML.")
@click.option("--skip-bad", is_flag=True, help="With --data: leave out images that cannot be read.")
@click.option("--out", type=click.Path(path_type=Path), help="A .tar.gz; default: NAME.tar.gz in this folder.")
def bundle(
    target: Path,
    format_name: str | None,
    data: Path | None,
    config: Path | None,
    shape: str | None,
    overrides: tuple[str, ...],
    skip_bad: bool,
    out: Path | None,
) -> None:
    """Pack an artefact, with images that check it on a device.

    It is a run's, or with --data any ONNX or .ort file. On the device, the archive's `python run.py` checks files,
    scores, accuracy on real images and latency.
    """
    if data is None:
        refuse_without_data("bundle", target, config=config, shape=shape, overrides=overrides, skip_bad=skip_bad)
        from ecd_deploy.pipelines.run import run_bundle

        packed = run_bundle(target, format_name=format_name, output=out)
    else:
        if format_name is not None:
            raise UsageError(f"--format {format_name}: of a run directory only, without --data")
        from ecd_deploy.pipelines.run import run_model_bundle

        given = (*overrides, *size_override(shape))
        packed = run_model_bundle(target, data, config=config, overrides=given, output=out, skip_bad=skip_bad)
    click.echo(f"{packed.path}  {packed.bytes:,} bytes  sha256 {packed.sha256}")
    click.echo(f"on the device: tar -xf {packed.path.name} && cd {packed.description.name} && python run.py")
