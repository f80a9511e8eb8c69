"""The commands that check a run directory and sign it."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.core import require_training
from ecd_deploy.errors import ArtefactError

_existing_file = click.Path(path_type=Path, exists=True, dir_okay=False)
_run_directory = click.argument("run_dir", type=click.Path(path_type=Path))


@click.command()
@_run_directory
@click.option("--reproduce", is_flag=True, help="Also export again in another process, and compare every byte.")
@click.option("--public-key", type=_existing_file, help="Also check the signature, with this public key.")
@click.option("--chain", multiple=True, type=_existing_file, help="Or with this certificate of a chain; repeatable.")
def verify(run_dir: Path, reproduce: bool, public_key: Path | None, chain: tuple[Path, ...]) -> None:
    """Check that RUN_DIR is what its manifest records."""
    from ecd_deploy.pipelines.verify.sign import check_signature
    from ecd_deploy.pipelines.verify.verify import builds_students
    from ecd_deploy.pipelines.verify.verify import reproduce as export_again
    from ecd_deploy.pipelines.verify.verify import verify as compare_with_manifest

    if reproduce:
        require_training()
    differences = compare_with_manifest(run_dir)
    if reproduce and not differences:
        differences = export_again(run_dir)
    if differences:
        lines = "\n".join(f"  {entry.file}: {entry.problem}" for entry in differences)
        raise ArtefactError(f"{run_dir} does not match its manifest:\n{lines}")
    if public_key is not None or chain:
        check_signature(run_dir, public_key, chain)
        click.echo("the signature is valid")
    click.echo("every file is as recorded" + (", and exporting again gives the same bytes" if reproduce else ""))
    if not builds_students():
        click.echo("not checked: whether the recipe's network takes the weights, as torch is not installed")


@click.command()
@_run_directory
@click.option("--key", type=_existing_file, required=True, help="Elliptic-curve private key, PEM.")
@click.option("--certificate", type=_existing_file, help="Certificate of the key, PEM; without it the key signs alone.")
@click.option("--chain", multiple=True, type=_existing_file, help="Intermediate or root certificate; repeatable.")
def sign(run_dir: Path, key: Path, certificate: Path | None, chain: tuple[Path, ...]) -> None:
    """Verify RUN_DIR, then sign it (extra [signing])."""
    from ecd_deploy.pipelines.verify.sign import sign as sign_run
    from ecd_deploy.pipelines.verify.verify import verify as compare_with_manifest

    if differences := compare_with_manifest(run_dir):
        raise ArtefactError(f"not signed: {differences[0].file} {differences[0].problem}; see ecd-deploy verify")
    click.echo(sign_run(run_dir, key, certificate, chain))
