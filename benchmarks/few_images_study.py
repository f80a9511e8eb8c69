"""ECD against its student alone where training images are few and the student has room for them.

Runs what is not done yet of the study in `studies/reduced-cifar100-few`, as `ecd-deploy compare reduced-cifar100-few
--jobs 2 --resume` does.
"""

from __future__ import annotations

from benchmarks.figures import Report
from benchmarks.study_results import finish

NAME = "few_images_study"
STUDY = "reduced-cifar100-few"


def measure() -> Report:
    """Finish the study; keep its table, its curves and the outcome of each run."""
    return finish(NAME, STUDY)
