"""The command that looks into a trained run."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.training import TrainingCommand


@click.command(cls=TrainingCommand)
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Another run to draw beside it, such as a baseline; repeatable.",
)
@click.option("--samples", type=click.IntRange(min=6), default=1000, show_default=True, help="Test images for t-SNE.")
@click.option("--images", type=click.IntRange(min=1), default=6, show_default=True, help="Test images for Grad-CAM++.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For the images and t-SNE.")
def explain(run_dir: Path, against: tuple[Path, ...], samples: int, images: int, seed: int) -> None:
    """Draw t-SNE and Grad-CAM++ of RUN_DIR's student and teacher.

    Both show what the networks make of test images. Needs the extra [explain].
    """
    from ecd_deploy.pipelines.explain.explain import explain as look

    for path in look(run_dir, against, samples=samples, images=images, seed=seed):
        click.echo(path)
