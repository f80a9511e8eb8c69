"""The commands for a look before a run: at the student, and at the machine."""

from __future__ import annotations

import click

from ecd_deploy.cli.ending import console
from ecd_deploy.cli.model_options import parse_shape
from ecd_deploy.cli.training import TrainingCommand
from ecd_deploy.errors import UsageError


@click.command(cls=TrainingCommand)
@click.argument("subject", metavar="MODEL|RECIPE")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Set one value of the recipe; repeatable."
)
@click.option("--batch-size", type=click.IntRange(1), help="Same as train.batch_size; a MODEL's default: 128.")
@click.option(
    "--image-size",
    metavar="SIDE|HEIGHTxWIDTH",
    help="Same as data.image_size; a MODEL's default: 32, 64 or 224.",
)
@click.option("--in-channels", type=click.IntRange(1), help="Channels of the images; default: the recipe's, or 3.")
@click.option("--classes", type=click.IntRange(2), help="Same as student.num_classes; a MODEL's default: 100.")
@click.option(
    "--kernels",
    type=click.IntRange(2),
    help="Same as method.kernels, n of a dynamic convolution; a MODEL's default: 16.",
)
@click.option(
    "--stages", metavar="N,N", default="", help="Same as method.stages; a MODEL's default: 2 and 3, where it has them."
)
@click.option("--all", "every_convolution", is_flag=True, help="List every convolution and every connection.")
@click.option(
    "--rehearsal/--no-rehearsal",
    default=True,
    help="Whether a RECIPE is then rehearsed, as by `rehearse`, on noise of its images' shape.",
)
def inspect(
    subject: str,
    overrides: tuple[str, ...],
    batch_size: int | None,
    image_size: str | None,
    in_channels: int | None,
    classes: int | None,
    kernels: int | None,
    stages: str,
    every_convolution: bool,
    rehearsal: bool,
) -> None:
    """Show how a student would be trained, and what that costs.

    Nothing is trained and no image is read. MODEL is a student's name, RECIPE a built-in name or a TOML file, which
    is rehearsed too: what would fail later ends with exit code 2.
    The other options are short forms of --set and override the recipe. A pretrained teacher is not counted.
    """
    numbers = [part.strip() for part in stages.split(",") if part.strip()]
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--stages {stages}: expected stage numbers, such as --stages 2,3")
    given = {
        "--batch-size": ("train.batch_size", batch_size),
        "--image-size": ("data.image_size", _sides(image_size)),
        "--classes": ("student.num_classes", classes),
        "--kernels": ("method.kernels", kernels),
        "--stages": ("method.stages", f"[{', '.join(map(str, map(int, numbers)))}]" if numbers else None),
    }
    from ecd_deploy.pipelines.inspect.subject import read_subject

    found = read_subject(
        subject,
        overrides=overrides,
        options={option: (key, str(value)) for option, (key, value) in given.items() if value is not None},
        in_channels=in_channels,
    )
    from ecd_deploy.cli.text.inspection import print_inspection
    from ecd_deploy.pipelines.inspect.inspection import inspect_student

    inspection = inspect_student(found)
    print_inspection(inspection, console(), every_convolution=every_convolution)
    if rehearsal and found.recipe is not None:
        from ecd_deploy.pipelines.rehearse.stand_in import rehearse_on_noise

        # the recipe's method, but for what is in the directory of another run
        rehearsed = found.recipe.model_copy(update={"method": inspection.method})
        click.echo(rehearse_on_noise(rehearsed, inspection.structure.image_shape, found.classes).words())


def _sides(image_size: str | None) -> str | None:
    """`--image-size` as TOML."""
    if image_size is None or image_size.isdecimal():
        return image_size
    return str(list(parse_shape(image_size, "--image-size") or ()))


@click.command(cls=TrainingCommand)
@click.argument("recipe")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Change one value of the recipe; repeatable."
)
def rehearse(recipe: str, overrides: tuple[str, ...]) -> None:
    """Try the whole way on a few images, before any training.

    The untrained student of RECIPE is taken through forward, loss and gradients, split proof, export in every format
    of the recipe, and parity. What would fail after hours of training fails here, with exit code 2, or 4 for images.
    `run` and `train` do this by themselves.
    """
    from ecd_deploy.recipe.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    from ecd_deploy.pipelines.run import run_rehearsal

    click.echo(run_rehearsal(loaded).words())


@click.command()
def doctor() -> None:
    """Show versions and hardware, and check that the runtimes work."""
    from ecd_deploy.pipelines.inspect.doctor import diagnose

    diagnose(console())
