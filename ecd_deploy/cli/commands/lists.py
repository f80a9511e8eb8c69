"""The commands that list what is built in."""

from __future__ import annotations

import click


@click.command()
def recipes() -> None:
    """List the built-in recipes."""
    from ecd_deploy.recipe.recipe import BUILTIN_RECIPES, load_recipe

    for name in BUILTIN_RECIPES.names():
        click.echo(f"{name:20} {load_recipe(name).description}")


@click.command()
def studies() -> None:
    """List the built-in studies, for `compare`.

    There is one for each of the paper's tables, and some that two CPU cores can run.
    """
    from ecd_deploy.pipelines.study.study import BUILTIN_STUDIES, load_study

    names = BUILTIN_STUDIES.names()
    width = max(map(len, names))
    for name in names:
        study = load_study(name)
        click.echo(f"{name:{width}} {len(study.arms)} arms x {len(study.seeds)} seeds. {study.description}")


@click.command()
def models() -> None:
    """List the built-in students with their parameter counts."""
    from ecd_deploy.models.sizes import CLASSES, student_sizes

    for entry in student_sizes():
        click.echo(f"{entry.name:14} {entry.parameters:>10,} parameters at {CLASSES} classes")
    click.echo("wrn-D-K        any depth D = 6n + 4 and width K")
    click.echo("torchvision:NAME, timm:NAME, package.module:factory")


@click.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    import json

    from ecd_deploy.recipe.recipe import Recipe

    click.echo(json.dumps(Recipe.model_json_schema(), indent=2))
