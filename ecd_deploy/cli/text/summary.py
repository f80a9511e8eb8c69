"""What a person reads in the terminal at the end of a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ecd_deploy.cli.text.gate import print_gate
from ecd_deploy.pipelines.record.names import HTML_NAME
from ecd_deploy.pipelines.report.results import RunResults
from ecd_deploy.pipelines.report.words import describe_training
from ecd_deploy.recipe.export import UNVERIFIED_FORMATS


def print_summary(results: RunResults, root: Path, console: Console) -> None:
    """Print accuracy, artefacts, latency and the gate of a finished run."""
    training, paired = results.training, results.validation.onnx_top1
    console.print(describe_training(training, results.recipe.train.select))
    console.print(
        f"test top-1, {paired.candidate.images} images: ONNX {paired.candidate.accuracy:.2%}, "
        f"PyTorch {paired.reference.accuracy:.2%}"
    )
    for artefact in results.artefacts.artefacts:
        mark = "  recommended on this host" if artefact.format == results.validation.recommended else ""
        mark = "  unverified: its runtime has not run it" if artefact.format in UNVERIFIED_FORMATS else mark
        console.print(f"  {root / artefact.file}  {artefact.bytes / 1e3:.1f} kB{mark}")
    print_gate(results.gate, console)
    console.print(f"report: {root / HTML_NAME}")
