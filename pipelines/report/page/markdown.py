"""`report.md`: the page's sections as Markdown."""

from __future__ import annotations

from ecd_deploy.pipelines.gate.ci import escape
from ecd_deploy.pipelines.report.page.page import Page
from ecd_deploy.pipelines.report.page.section import Section, Table


def page_markdown(page: Page) -> str:
    """Write a page as Markdown; its charts are left to the HTML page."""
    title = f"# {escape(page.name)}: {page.verdict}"
    parts = [
        title,
        escape(page.lead_in),
        *(_section(section) for section in page.sections if _has_words(section)),
    ]
    return "\n\n".join(parts) + "\n"


def _has_words(section: Section) -> bool:
    return bool(section.text or section.points or section.tables or section.commands)


def _section(section: Section) -> str:
    parts = [f"## {section.title}"]
    if section.text:
        parts.append("\n".join(escape(line) for line in section.text.split("\n")))
    if section.points:
        parts.append("\n".join(f"- {escape(point)}" for point in section.points))
    parts += [_table(table) for table in section.tables]
    if section.commands:
        parts.append(f"```sh\n{section.commands}\n```")
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    rows = [
        tuple(escape(name) for name in table.header),
        tuple("--:" if table.is_numeric(column) else "---" for column in range(len(table.header))),
    ]
    rows += [tuple(escape(cell.text) for cell in row) for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
