"""ECD against its student alone with few steps on all images: what of the gain on few images is due to the steps.

Runs what is not done yet of the study in `studies/reduced-cifar100-short`, as `ecd-deploy compare
reduced-cifar100-short --jobs 2 --resume` does.
"""

from __future__ import annotations

from benchmarks.figures import Report
from benchmarks.study_results import finish

NAME = "short_study"
STUDY = "reduced-cifar100-short"


def measure() -> Report:
    """Finish the study; keep its table, its curves and the outcome of each run."""
    return finish(NAME, STUDY)
