"""The images of a run, which must do for what its recipe asks."""

from __future__ import annotations

from ecd_deploy.data import DataSplits, check_classes, has_validation, load_data
from ecd_deploy.errors import RecipeError
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.start import read_start
from ecd_deploy.recipe.recipe import Recipe


def load_run_data(recipe: Recipe) -> DataSplits:
    """Read the images that the recipe names.

    Raises:
        RecipeError: the recipe needs validation images, and neither a cut nor a folder gives any; or it has a limit or
            a weight for a class or a slice that there is none of; or it asks for images of each class.
        DataError: images that cannot be used.
    """
    if recipe.need_of_validation is not None and not has_validation(recipe.data):
        raise RecipeError(f"recipe '{recipe.name}': {recipe.need_of_validation}")
    data = load_data(recipe.data, seed=recipe.seed)
    recipe.gate.check_names(data.classes, {name: tuple(sorted(set(of))) for name, of in data.test_columns.items()})
    check_classes(recipe.train, data)
    return data


def recorded_data(directory: RunDirectory) -> DataSplits:
    """Read the images that a run was made from.

    Raises:
        DataError: they are not those any more, or cannot be used.
    """
    data = load_data(directory.recipe.data, seed=directory.recipe.seed)
    directory.bind_data(data.digest)
    start = read_start(directory)
    return data if start is None else start.normalised(data)
