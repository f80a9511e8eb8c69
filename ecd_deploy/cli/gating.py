"""The command that decides: `gate`."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.ending import console, finish


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--baseline", type=click.Path(path_type=Path), metavar="RUN_DIR", help="Also compare with this run.")
@click.option("--config", type=click.Path(path_type=Path), metavar="TOML", help="Limits that replace the recipe's.")
def gate(run_dir: Path, baseline: Path | None, config: Path | None) -> None:
    """Pass or fail a run by the limits of its recipe."""
    from ecd_deploy.pipelines.run import run_gate

    report = run_gate(run_dir, baseline=baseline, limits_file=config)
    from ecd_deploy.cli.text.gate import print_gate

    print_gate(report, console())
    finish(report, run_dir)
