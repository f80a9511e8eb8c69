"""What of a recipe cannot apply: extras that are not installed, limits that no result could meet, absent processors."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from ecd_deploy.errors import RecipeError, UsageError
from ecd_deploy.exporters import exporter_for
from ecd_deploy.measure.statistics import accuracy_lower_bound, drop_upper_bound
from ecd_deploy.recipe.export import EXTRA_FORMATS
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.system import usable_cpus


def check_applies(recipe: Recipe, test_images: int | None) -> tuple[str, ...]:
    """Look at formats, gate and profile, before anything is built.

    Args:
        recipe: of the run.
        test_images: how many there are; None if that is not known yet.

    Returns:
        Warnings: limits that the test images are too few to decide, so that the gate will be inconclusive.

    Raises:
        UsageError: an extra is not installed.
        RecipeError: a limit is of images that are not there, or the profile's processors are not here.
    """
    absent = [
        name for name in recipe.export.formats if name in EXTRA_FORMATS and find_spec(EXTRA_FORMATS[name]) is None
    ]
    if absent:
        extras = sorted({name.partition("-")[0] for name in absent})
        raise UsageError(
            f"export.formats: {', '.join(absent)} cannot be written, the package is not installed: "
            f"pip install 'ecd-deploy[{','.join(extras)}]', or leave it out"
        )
    if (problem := next(_obstacles(recipe, test_images), None)) is not None:
        raise RecipeError(f"recipe '{recipe.name}': {problem}")
    return tuple(_undecidable(recipe, test_images)) if test_images else ()


def _obstacles(recipe: Recipe, test_images: int | None) -> Iterator[str]:
    gate, profile = recipe.gate, recipe.profile
    if gate.artefact not in ("recommended", "all") and not _measured(gate.artefact, recipe):
        choices = ("recommended", "all", *(name for name in recipe.export.formats if _measured(name, recipe)))
        yield f"gate.artefact '{gate.artefact}': no runtime of profile.runtimes runs it; there are {', '.join(choices)}"
    if test_images == 0 and (gate.min_top1 is not None or gate.max_drop is not None):
        yield "gate.min_top1 and gate.max_drop are of the test images, and there are none"
    if profile.cpus is not None and (missing := set(profile.cpus) - set(usable_cpus())):
        yield f"profile.cpus names {', '.join(map(str, sorted(missing)))}, which this process may not use"


def _measured(name: str, recipe: Recipe) -> bool:
    return exporter_for(name, recipe.export).runtime in recipe.profile.runtimes


def _undecidable(recipe: Recipe, images: int) -> Iterator[str]:
    gate = recipe.gate
    if gate.min_top1 is not None:
        best = accuracy_lower_bound(images, images, gate.confidence)
        if best < gate.min_top1:
            yield (
                f"gate.min_top1 {gate.min_top1} cannot be decided: with {images} test images, all of them right, the "
                f"{gate.confidence:.0%} bound on top-1 is {best:.3f}; lower it, or test on more images"
            )
    if gate.max_drop is not None:
        least = drop_upper_bound(0, 0, images, gate.confidence)
        if least > gate.max_drop:
            yield (
                f"gate.max_drop {gate.max_drop} cannot be decided: with {images} test images and no loss, the "
                f"{gate.confidence:.0%} bound on it is {least:.3f}; raise it, or test on more images"
            )
