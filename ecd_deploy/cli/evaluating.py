"""The commands for a model of any origin: `evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.ending import console
from ecd_deploy.errors import UsageError


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER|CSV",
    help="Images as FOLDER/CLASS/*, or a CSV file with the columns path and label; other columns are slices.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="TOML", help="What the model expects, below [input]."
)
@click.option("--shape", metavar="HEIGHTxWIDTH", help="Size of the input where the model leaves it free.")
@click.option("--set", "overrides", multiple=True, metavar="input.KEY=VALUE", help="Set one value of it; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results; default: they are only printed.")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read.")
def evaluate(
    model: Path,
    data: Path,
    config: Path | None,
    shape: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    skip_bad: bool,
) -> None:
    """Measure the accuracy of any ONNX classifier on labelled images."""
    given = (*overrides, *size_override(shape))
    from ecd_deploy.recipe.input import read_model_config

    settings = read_model_config(config, given)
    from ecd_deploy.cli.text.evaluation import print_evaluation
    from ecd_deploy.pipelines.evaluate.evaluate import evaluate as evaluate_model

    found = evaluate_model(model, data, settings.input, out=out, skip_bad=skip_bad)
    print_evaluation(found.evaluation, console())
    if out is not None:
        click.echo(f"results: {out}")


def size_override(shape: str | None) -> tuple[str, ...]:
    """`--shape` as the value of `input.size`.

    Raises:
        UsageError: it is no height and width.
    """
    if shape is None:
        return ()
    height, separator, width = shape.lower().partition("x")
    if not (separator and height.isdecimal() and width.isdecimal()):
        raise UsageError(f"--shape {shape}: expected HEIGHTxWIDTH in pixels, for example 224x224")
    return (f"input.size=[{int(height)}, {int(width)}]",)
