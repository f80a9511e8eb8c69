"""Step 7: the pages about a run, made from the results of the other steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecd_deploy.pipelines.record.names import HTML_NAME, MARKDOWN_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.report.bom import write_bom
from ecd_deploy.pipelines.report.card import write_model_card
from ecd_deploy.pipelines.report.page.content import run_page
from ecd_deploy.pipelines.report.page.html import page_html, with_figures
from ecd_deploy.pipelines.report.page.markdown import page_markdown
from ecd_deploy.pipelines.report.results import NamedRun, RunResults


def write_report(directory: RunDirectory, results: RunResults, others: Sequence[NamedRun] = ()) -> Path:
    """Write the report, with other runs beside this one, the model card and the bill of materials.

    Returns:
        The path of `report.html`.
    """
    write_model_card(directory, results)  # first: it reads the student's file, and where that is bad nothing is written
    write_bom(directory, results)
    page = run_page(results, others)
    directory.write(MARKDOWN_NAME, page_markdown(page).encode())
    directory.write(HTML_NAME, page_html(with_figures(page, results, others)).encode())
    return directory.root / HTML_NAME
