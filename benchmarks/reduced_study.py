"""ECD against its student alone on real images, at a size that two CPU cores train: table, curves, every run.

Runs what is not done yet of the study in `studies/reduced-cifar100`, as `ecd-deploy compare reduced-cifar100 --jobs 2
--resume` does.
"""

from __future__ import annotations

from benchmarks.figures import Report
from benchmarks.study_results import finish

NAME = "reduced_study"
STUDY = "reduced-cifar100"


def measure() -> Report:
    """Finish the study; keep its table, its curves and the outcome of each run."""
    return finish(NAME, STUDY)
