"""The command line: thin, and quick to start because each command imports what it needs."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

import click

from ecd_deploy.cli.commands.comparing import compare
from ecd_deploy.cli.commands.evaluating import evaluate, predict
from ecd_deploy.cli.commands.explaining import explain
from ecd_deploy.cli.commands.gating import gate
from ecd_deploy.cli.commands.inspecting import doctor, inspect, rehearse
from ecd_deploy.cli.commands.lists import models, recipes, schema, studies
from ecd_deploy.cli.commands.profiling import profile
from ecd_deploy.cli.commands.searching import search
from ecd_deploy.cli.commands.shipping import bundle
from ecd_deploy.cli.commands.starting import init
from ecd_deploy.cli.commands.steps import export, report, run, split, train, validate
from ecd_deploy.cli.commands.verifying import sign, verify
from ecd_deploy.cli.entry import invoke
from ecd_deploy.cli.sections import SectionedGroup

_OBJECTS_BETWEEN_COLLECTIONS = 10_000
"""Imports make many objects and no garbage: with Python's own threshold, a tenth of a short command looks for some."""


@click.group(cls=SectionedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecd-deploy")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Train a small classifier with Explicit Connection Distillation and ship it.

    The student is trained together with a generated teacher, split off with a proof that nothing of
    the teacher is left, exported, compared with onnxruntime, timed, and passed or failed by a gate.

    Exit codes: 0 pass, 1 a limit is violated, 2 wrong call or recipe, 3 inconclusive,
    4 bad artefact or data, 70 internal error, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    del debug  # read by invoke, which reports errors


cli.add_section("Run the pipeline", init, run)
cli.add_section("Run one step", train, split, export, validate, report)
cli.add_section("Measure and decide", evaluate, predict, profile, gate)
cli.add_section("Compare and search", compare, search)
cli.add_section("Look", inspect, rehearse, explain, recipes, models, studies, schema, doctor)
cli.add_section("Ship", bundle, verify, sign)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `ecd-deploy`: runs the command and exits with its code."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it looks for some in every installed package
    sys.exit(invoke(cli, list(sys.argv[1:] if arguments is None else arguments)))
