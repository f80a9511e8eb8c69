"""Step 7: the pages about a run, made from the files that the other steps left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecd_deploy.data import ImageSet
from ecd_deploy.pipelines.report.html import to_html
from ecd_deploy.pipelines.report.markdown import to_markdown
from ecd_deploy.pipelines.report.results import NamedRun, RunResults, read_results
from ecd_deploy.pipelines.run_directory import RunDirectory

MARKDOWN_NAME = "report.md"
HTML_NAME = "report.html"

__all__ = ["HTML_NAME", "MARKDOWN_NAME", "NamedRun", "RunResults", "read_results", "write_report"]


def write_report(directory: RunDirectory, test_images: ImageSet | None = None, others: Sequence[NamedRun] = ()) -> Path:
    """Write `report.md` and `report.html`, other runs set beside this one; returns the path of the latter.

    Raises:
        RunDirectoryError: naming the step that has not been run.
        ArtefactError: a file was changed.
    """
    results = read_results(directory, test_images)
    directory.write(MARKDOWN_NAME, to_markdown(results, others).encode())
    directory.write(HTML_NAME, to_html(results, others).encode())
    return directory.root / HTML_NAME
