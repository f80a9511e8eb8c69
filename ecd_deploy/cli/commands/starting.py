"""The command that writes a first recipe."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The recipe; default: FOLDER's name, and .toml.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(folder: Path, out: Path | None, force: bool) -> None:
    """Look at FOLDER and write a first recipe for its images.

    FOLDER holds train/CLASS/* and test/CLASS/*, and val/CLASS/* if there are validation images; or CLASS/* alone, and
    then a CSV file beside the recipe says which images are for the test. Network, image size, epochs and limits follow
    from the number of the images, their sizes and their classes; each has its reason beside it.
    """
    from ecd_deploy.pipelines.init.folder import look_at
    from ecd_deploy.pipelines.init.recipe import recipe_name, write_recipe

    path = out or Path(f"{recipe_name(folder)}.toml")
    facts = look_at(folder)
    written = write_recipe(facts, path, force=force)
    click.echo(facts.words())
    click.echo(f"wrote {' and '.join(map(str, written))}: ecd-deploy inspect {path}")
