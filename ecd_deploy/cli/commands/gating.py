"""The command that decides: `gate`."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.ending import console, finish
from ecd_deploy.cli.model_options import DATA_HELP, default_output, refuse_without_data, size_override
from ecd_deploy.errors import UsageError


@click.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="RUN_DIR|MODEL.onnx")
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER|FILE", help=DATA_HELP)
@click.option(
    "--baseline", type=click.Path(path_type=Path), metavar="RUN_DIR|OLD.onnx", help="Also compare with this one."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="TOML",
    help="Limits that replace the recipe's; with --data also [profile], and [input] for what the model expects.",
)
@click.option("--out", type=click.Path(path_type=Path), help="With --data: folder for the results; default: NAME-gate.")
@click.option("--shape", metavar="HEIGHTxWIDTH", help="With --data: size of the input where the model leaves it free.")
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="With --data: set one value of TOML.")
@click.option(
    "--markdown",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the verdict as Markdown, fit for a comment of a pull request.",
)
@click.option("--skip-bad", is_flag=True, help="With --data: leave out images that cannot be read.")
@click.option("--power", is_flag=True, help="Decide nothing; show what the test images of a run can decide at best.")
def gate(
    target: Path,
    data: Path | None,
    baseline: Path | None,
    config: Path | None,
    out: Path | None,
    shape: str | None,
    overrides: tuple[str, ...],
    markdown: Path | None,
    skip_bad: bool,
    power: bool,
) -> None:
    """Pass or fail a run by its limits, or any model on labelled images.

    With --data the model, an ONNX or .ort file or that of a run, is evaluated on these images and timed first.
    """
    from ecd_deploy.files import check_writable, write_atomic

    if markdown is not None:
        if power:
            raise UsageError("--markdown: of a verdict only, without --power")
        check_writable(markdown, "--markdown")
    if data is None:
        refuse_without_data("gate", target, out=out, shape=shape, overrides=overrides, skip_bad=skip_bad)
        if power:
            from ecd_deploy.cli.text.gate import print_power
            from ecd_deploy.pipelines.run import run_power

            print_power(run_power(target, baseline=baseline, limits_file=config), console())
            return
        from ecd_deploy.pipelines.run import run_gate

        report, folder = run_gate(target, baseline=baseline, limits_file=config), target
    else:
        if power:
            raise UsageError("--power: of a run directory only, without --data")
        from ecd_deploy.pipelines.run import run_model_gate

        folder = out or default_output(target)
        report = run_model_gate(
            target,
            data,
            config=config,
            overrides=(*overrides, *size_override(shape)),
            baseline=baseline,
            out=folder,
            skip_bad=skip_bad,
        )
    from ecd_deploy.cli.text.gate import print_gate
    from ecd_deploy.pipelines.gate.decide import comment

    if markdown is not None:
        write_atomic(markdown, comment(report).encode())
    print_gate(report, console())
    finish(report, folder)
