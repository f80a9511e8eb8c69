"""The pages of a run, without a run directory."""

from __future__ import annotations

from collections.abc import Sequence

from ecd_deploy.pipelines.report.page.content import run_page
from ecd_deploy.pipelines.report.page.html import page_html, with_figures
from ecd_deploy.pipelines.report.page.markdown import page_markdown
from ecd_deploy.pipelines.report.results import NamedRun, RunResults


def to_html(results: RunResults, others: Sequence[NamedRun] = ()) -> str:
    return page_html(with_figures(run_page(results, others), results, others))


def to_markdown(results: RunResults) -> str:
    return page_markdown(run_page(results))
