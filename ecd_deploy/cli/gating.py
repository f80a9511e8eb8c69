"""The command that decides: `gate`."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.ending import console, finish


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--baseline", type=click.Path(path_type=Path), metavar="RUN_DIR", help="Also compare with this run.")
@click.option("--config", type=click.Path(path_type=Path), metavar="TOML", help="Limits that replace the recipe's.")
@click.option("--power", is_flag=True, help="Decide nothing; show what the test images can decide at best.")
def gate(run_dir: Path, baseline: Path | None, config: Path | None, *, power: bool) -> None:
    """Pass or fail a run by the limits of its recipe."""
    if power:
        from ecd_deploy.cli.text.gate import print_power
        from ecd_deploy.pipelines.run import run_power

        print_power(run_power(run_dir, baseline=baseline, limits_file=config), console())
        return
    from ecd_deploy.pipelines.run import run_gate

    report = run_gate(run_dir, baseline=baseline, limits_file=config)
    from ecd_deploy.cli.text.gate import print_gate

    print_gate(report, console())
    finish(report, run_dir)
