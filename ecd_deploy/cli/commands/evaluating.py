"""The commands for images and a model of any origin: `evaluate` and `predict`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ecd_deploy.cli.ending import console
from ecd_deploy.cli.model_options import DATA_HELP, refuse_other_keys, size_override


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER|FILE",
    help=DATA_HELP,
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
    """Measure the accuracy of any ONNX classifier on labelled images.

    MODEL may also be an .ort file, onnxruntime's own format.
    """
    refuse_other_keys("evaluate", overrides, "input.", "profile.provider=")
    given = (*overrides, *size_override(shape))
    from ecd_deploy.recipe.input import read_model_config

    settings = read_model_config(config, given)
    from ecd_deploy.cli.text.evaluation import print_evaluation
    from ecd_deploy.pipelines.evaluate.evaluate import evaluate as evaluate_model

    found = evaluate_model(model, data, settings.input, out=out, skip_bad=skip_bad, provider=settings.profile.provider)
    print_evaluation(found.evaluation, console())
    if out is not None:
        click.echo(f"results: {out}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx|RUN_DIR|BUNDLE")
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes of each image.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="TOML", help="Holds [input]: what the model expects."
)
@click.option("--shape", metavar="HEIGHTxWIDTH", help="Size of the input where the model leaves it free.")
@click.option("--set", "overrides", multiple=True, metavar="input.KEY=VALUE", help="Set one value of it; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(
    model: Path,
    images: tuple[Path, ...],
    top: int,
    config: Path | None,
    shape: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Classify images of any size.

    MODEL may also be an .ort file, onnxruntime's own format.
    """
    refuse_other_keys("predict", overrides, "input.")
    given = (*overrides, *size_override(shape))
    from ecd_deploy.recipe.input import read_model_config

    settings = read_model_config(config, given)
    from ecd_deploy.data.imagefolder.listing import printable
    from ecd_deploy.pipelines.evaluate.predict import predict as predict_images

    found = predict_images(model, images, settings.input, top=top)
    if as_json:
        shown = [entry.model_dump() | {"image": printable(entry.image)} for entry in found]
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    for entry in found:
        ranked = ", ".join(f"{choice.name} {choice.probability:.1%}" for choice in entry.classes)
        click.echo(f"{printable(entry.image)}: {printable(ranked)}")
