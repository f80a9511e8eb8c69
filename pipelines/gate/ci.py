"""What CI systems read of a verdict: JUnit XML and GitHub's step summary."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from html import escape as escape_markup
from pathlib import Path

from ecd_deploy.errors import EcdDeployError
from ecd_deploy.pipelines.gate.baseline import BaselineComparison
from ecd_deploy.pipelines.gate.check import Check, Verdict

_logger = logging.getLogger(__name__)

_SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
_SUMMARY_BYTES = 1 << 20
_COMMENT_LETTERS = 60_000
"""GitHub takes 65,536 letters, GitLab more."""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINK = re.compile(r"\](?=[\[(:])")
_KINDS = {Verdict.FAIL: "failure", Verdict.INCONCLUSIVE: "error"}


def junit(checks: Sequence[Check]) -> bytes:
    """One test case a check: `failure` for a violated limit, `error` for one that could not be decided."""
    cases = []
    for check in checks:
        said = f"value {check.value}, bound {check.bound}, limit {check.limit} {check.unit}: {check.reason}"
        kind = _KINDS.get(check.verdict)
        inside = "" if kind is None else f"<{kind} message={_attribute(said)}/>"
        cases.append(f'  <testcase classname="ecd-deploy.gate" name={_attribute(check.name)}>{inside}</testcase>')
    failures = sum(check.verdict is Verdict.FAIL for check in checks)
    errors = sum(check.verdict is Verdict.INCONCLUSIVE for check in checks)
    return _suite(cases, len(checks), failures, errors)


def junit_error(error: EcdDeployError) -> bytes:
    """Say why no verdict was reached."""
    message = f"<error message={_attribute(str(error))}/>"
    return _suite([f'  <testcase classname="ecd-deploy.gate" name="gate">{message}</testcase>'], 1, 0, 1)


def append_step_summary(markdown: str) -> None:
    """Add to the summary of the GitHub step, if there is one, within its size limit.

    A summary that cannot be written is warned of: the verdict does not depend on it.
    """
    name = os.environ.get(_SUMMARY_VARIABLE)
    if not name:
        return
    try:
        with Path(name).open("ab") as file:
            room = max(_SUMMARY_BYTES - file.tell(), 0)
            data = (markdown + "\n").encode()[:room].decode("utf-8", "ignore")
            file.write(data.encode())
    except OSError as error:
        _logger.warning("the step summary cannot be written: %s (%s=%s)", error.strerror, _SUMMARY_VARIABLE, name)


def summary_markdown(
    verdict: Verdict,
    checks: Sequence[Check],
    comparisons: Sequence[BaselineComparison],
    *,
    limits: str = "",
    warning: str | None = None,
) -> str:
    """The verdict, its checks and the classes that lost, as Markdown; what must be warned of comes first."""
    lines = [f"## ecd-deploy gate: {verdict.value}", ""]
    if warning is not None:
        lines += ["> [!WARNING]", f"> {escape(warning)}", ""]
    if limits:
        lines += [escape(limits), ""]
    lines += _table(checks)
    for found in comparisons:
        lines += ["", *map(escape, baseline_lines(found))]
    return "\n".join(lines) + "\n"


def comment_markdown(
    verdict: Verdict,
    checks: Sequence[Check],
    comparisons: Sequence[BaselineComparison],
    *,
    limits: str,
    warning: str | None,
) -> str:
    """The same as a comment of a pull request: what did not pass first, the rest folded, and nobody is notified.

    What would exceed the platforms' limit is left out, and said to be.
    """
    passed = [check for check in checks if check.verdict is Verdict.PASS]
    others = [check for check in checks if check.verdict is not Verdict.PASS]
    text = summary_markdown(verdict, others, comparisons, limits=limits, warning=warning)
    if not others:
        text = text.replace("\n".join(_table([])), "Every check passed.")
    if passed:
        head = f"<details><summary>{len(passed)} passed</summary>"
        text += "\n".join(["", head, "", *_table(passed), "", "</details>", ""])
    # An empty HTML comment keeps a class called @team from being a mention of one.
    text = text.replace("@", "@<!-- -->")
    if len(text) <= _COMMENT_LETTERS:
        return text
    whole = text[:_COMMENT_LETTERS].rpartition("\n")[0]
    closing = "\n\n</details>" if "<details>" in whole else ""
    return f"{whole}{closing}\n\nThe rest is left out here; `gate.json` has all of it.\n"


def _table(checks: Sequence[Check]) -> list[str]:
    lines = ["| check | value | bound | limit | verdict | reason |", "| --- | --- | --- | --- | --- | --- |"]
    for check in checks:
        cells = (check.name, _number(check.value), _number(check.bound), _limit(check))
        lines.append(f"| {' | '.join(map(escape, (*cells, check.verdict.value, check.reason)))} |")
    return lines


def baseline_lines(found: BaselineComparison) -> list[str]:
    """What was found against the baseline, in sentences, and each class that lost."""
    lines = [
        f"- class {change.name}: {change.baseline_correct} to {change.candidate_correct} of {change.images}"
        for change in found.regressions
    ]
    return [*baseline_sentences(found), *lines]


def baseline_sentences(found: BaselineComparison) -> list[str]:
    """What was found against the baseline over all classes, and on which images."""
    accuracy = (
        f"{found.file} against the baseline's {found.baseline_file}, {found.images} test images: {found.lost} lost, "
        f"{found.gained} gained; "
        f"exact McNemar p = {found.mcnemar_p:.3g}, which never shows that nothing was lost."
    )
    latency = f"p50 ratio {found.latency.text}, same model against itself {found.latency.same_model:.3f}."
    if not found.evaluated_anew:
        return [accuracy, latency]
    anew = (
        f"The baseline's run had other test images, {found.own_images}: its artefact was evaluated anew on those "
        "of this run."
    )
    return [accuracy, anew, latency]


def _suite(cases: list[str], tests: int, failures: int, errors: int) -> bytes:
    head = f'<testsuite name="ecd-deploy gate" tests="{tests}" failures="{failures}" errors="{errors}">'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', head, *cases, "</testsuite>"]
    return ("\n".join(lines) + "\n").encode()


def _attribute(text: str) -> str:
    # XML has no place for control characters, not even escaped.
    clean = "".join(letter for letter in text if letter in "\t\n" or letter >= " ")
    return f'"{escape_markup(clean).replace(chr(10), "&#10;")}"'


def _limit(check: Check) -> str:
    return "-" if check.limit is None else f"{check.limit:g} {check.unit}".strip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def escape(text: str) -> str:
    """One line of Markdown that shows the text as it is, in a table's cell too: no HTML, no links, no line breaks."""
    line = "".join(_ENTITIES.get(letter, letter if letter.isprintable() else " ") for letter in text)
    return _LINK.sub(r"\\]", line.replace("\\", "\\\\").replace("|", "\\|"))
