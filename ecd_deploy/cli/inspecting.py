"""The command that looks at a student before it is trained."""

from __future__ import annotations

import click

from ecd_deploy.cli.ending import console
from ecd_deploy.errors import UsageError


@click.command()
@click.argument("model")
@click.option("--image-size", type=click.IntRange(1), help="Side in pixels; default: 32, 64 or 224.")
@click.option("--in-channels", type=click.IntRange(1), default=3, show_default=True)
@click.option("--classes", type=click.IntRange(2), default=100, show_default=True)
@click.option("--kernels", type=click.IntRange(2), default=16, show_default=True, help="n of the dynamic convolutions.")
@click.option("--stages", metavar="N,N", default="", help="Stages to connect; default: 2 and 3, as far as there are.")
@click.option("--all", "every_convolution", is_flag=True, help="List every convolution and every connection.")
def inspect(
    model: str,
    image_size: int | None,
    in_channels: int,
    classes: int,
    kernels: int,
    stages: str,
    every_convolution: bool,
) -> None:
    """Show how MODEL, a student's name, is treated and what its training costs."""
    numbers = [part.strip() for part in stages.split(",") if part.strip()]
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--stages {stages}: expected numbers, for example --stages 2,3")
    from ecd_deploy.pipelines.inspection import inspect_student
    from ecd_deploy.pipelines.inspection_text import print_inspection

    found = inspect_student(
        model,
        classes=classes,
        in_channels=in_channels,
        image_size=image_size,
        kernels=kernels,
        stages=tuple(map(int, numbers)),
    )
    print_inspection(found, console(), every_convolution=every_convolution)
