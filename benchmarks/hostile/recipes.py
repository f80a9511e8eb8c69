"""Recipes, limits and values of `--set` that no recipe needs, and names that steer terminals and pages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.commands import Ended
from benchmarks.hostile.case import SECONDS_OF_A_RUN, Call, Case, Place, settings

_REFUSED = frozenset({2})
_DECIDED = frozenset({0, 1, 3})
_MINIMAL = 'name = "mine"\n[data]\nsource = "digits"\n[student]\nname = "resnet8"\n'
_VALUES = {
    "10,000 opening brackets": "[" * 10_000,
    "10,000 brackets": "[" * 10_000 + "]" * 10_000,
    "inline tables 5,000 deep": "{a=" * 5_000 + "1" + "}" * 5_000,
    "arrays and tables in turns": "[{a=" * 3_000 + "1" + "}]" * 3_000,
    "an integer of 5,000 digits": "9" * 5_000,
    "a negative integer of 5,000 digits": "-" + "9" * 5_000,
    "a hexadecimal integer of 9,000 digits": "0x" + "f" * 9_000,
    "an octal integer of 20,000 digits": "0o" + "7" * 20_000,
    "a binary integer of 40,000 digits": "0b" + "1" * 40_000,
    "a list of such integers": f"[1, {'9' * 5_000}]",
}
_KEYS = {
    "a dotted key of 5,000 parts": ".".join("a" * 5_000) + " = 1\n",
    "a header of 5,000 parts": f"[{'.'.join('a' * 5_000)}]\n",
    "10,000 unknown keys": "".join(f"k{number} = 1\n" for number in range(10_000)),
    "the same table 2,000 times": "[[a]]\n" * 2_000,
    "a key of 100,000 letters": "k" * 100_000 + " = 1\n",
    "a key of terminal escapes": '"\\u001b[2Jx\\u0007" = 1\n',
    "a key of line breaks": '"a\\nb" = 1\n',
    "a null byte": 'name = "\0"\n',
    "a byte order mark": "\ufeff" + _MINIMAL,
}
_FILES = {
    "is not UTF-8": b'name = "\xff\xfe"\n',
    "UTF-16": _MINIMAL.encode("utf-16"),
    "is empty": b"",
    "is a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
}
_LIMITS = {
    "a header": ("[gate]\nmax_size_mb = 1.0\n", _DECIDED, "decides nothing about accuracy"),
    "no header": ("min_top1 = 0.0\n", _DECIDED, ""),
    "nothing": ("", _DECIDED, "decides nothing about accuracy"),
    "a misspelt key": ("min_topp = 0.5\n", _REFUSED, "min_top1"),
    "a misspelt header": ("[gates]\nmin_top1 = 0.5\n", _REFUSED, "did you mean 'gate'"),
    "another section": ("[gate]\nmin_top1 = 0.5\n[train]\nepochs = 2\n", _REFUSED, "train: unknown key"),
    "a whole recipe": (_MINIMAL, _REFUSED, "unknown key"),
    "a limit that is no number": ("min_top1 = nan\n", _REFUSED, "min_top1"),
    "a limit above one": ("min_top1 = 97\n", _REFUSED, "min_top1"),
    "a limit in quotes": ('[gate]\nmin_top1 = "0.5"\n', _REFUSED, "min_top1"),
    "gate that is a number": ("gate = 3\n", _REFUSED, "gate"),
    "gate that is a list": ("[[gate]]\nmin_top1 = 0.5\n", _REFUSED, "gate"),
    "brackets": ("min_top1 = " + "[" * 10_000, _REFUSED, "TOML"),
    "5,000 digits": ("max_size_mb = " + "9" * 5_000, _REFUSED, "TOML"),
    "a duplicate": ("min_top1 = 0.1\nmin_top1 = 0.2\n", _REFUSED, "TOML"),
}
_NAMES = ("x[bold]", "[/red]", "a b; rm", "$(id)", "x|y", "<script>x<", ":smile:", "-x", "\u202ex", "caf\udce9", "é")
_WRITES = ("run*/gate.json", "run*/junit.xml", "run*/MANIFEST.json")
"""Of `gate`."""


def cases() -> list[Case]:
    """Recipes by `inspect`, limits by `gate`, names by `gate` and `report`."""
    return [
        *(_recipe(f"recipe: {title}", f"x = {value}\n{_MINIMAL}".encode()) for title, value in _VALUES.items()),
        *(_recipe(f"recipe: {title}", (text + _MINIMAL).encode()) for title, text in _KEYS.items()),
        *(_recipe(f"recipe: {title}", content) for title, content in _FILES.items()),
        _recipe("study: brackets", b"x = " + b"[" * 10_000, "compare"),
        _recipe("study: an integer of 5,000 digits", b"seeds = [" + b"9" * 5_000 + b"]", "compare"),
        _recipe("recipe of a search: brackets", b"x = " + b"[" * 10_000, "search"),
        *(_override(f"--set: {title}", f"data.path={value}") for title, value in _VALUES.items()),
        _override("--set: a key of 5,000 parts", ".".join("a" * 5_000) + "=1"),
        _override("--set: a terminal escape", "data.\x1b[2J=1"),
        _override("--set: an unknown value of escapes", "method.name=\x1b]0;x\x07"),
        _override("--set: no key", "=1"),
        _override("--set: is not UTF-8", "student.name=\udcff"),
        *(_limits(f"gate --config: {title}", *entry) for title, entry in _LIMITS.items()),
        *(_named(name) for name in _NAMES),
        _summary("is a folder", lambda place: place.folder),
        _summary("is in no folder", lambda place: place.folder / "none" / "summary.md"),
        _summary("is a link to itself", _own_link),
        _summary("is empty", lambda _: Path()),
        _summary("is full", lambda _: Path("/dev/full")),
        Case(
            kind="stdout",
            name="schema: nothing but JSON",
            plant=lambda _: Call(words=("schema",)),
            codes=frozenset({0}),
            check=lambda _, ended: None if ended.out.startswith("{") and not ended.err else "more than JSON",
        ),
        *(_quantised(method, count) for method in ("entropy", "percentile", "minmax") for count in (None, 37)),
        _quantised("entropy", 1),
    ]


def _recipe(title: str, content: bytes, command: str = "inspect") -> Case:
    def plant(place: Place) -> Call:
        place.write("mine.toml", content)
        return Call(words=(command, "mine.toml"))

    return Case(kind="recipe", name=title, plant=plant, codes=_REFUSED, lines=22, seconds=60.0, check=_short)


def _short(_folder: Path, ended: Ended) -> str | None:
    return f"{len(ended.err)} characters" if len(ended.err) > 6_000 else None


def _override(title: str, value: str) -> Case:
    return Case(
        kind="recipe",
        name=title,
        plant=lambda _: Call(words=("inspect", "digits", *settings(value))),
        codes=_REFUSED,
        lines=2,
        seconds=60.0,
        check=_short,
    )


def _limits(title: str, text: str, codes: frozenset[int], says: str) -> Case:
    def plant(place: Place) -> Call:
        place.run()
        place.write("ci.toml", text)
        return Call(words=("gate", "run", "--config", "ci.toml"))

    return Case(kind="gate", name=title, plant=plant, codes=codes, says=says, lines=6, writes=_WRITES)


def _named(name: str) -> Case:
    """A run directory of that name: shown as it is, or escaped where it cannot be printed."""
    shown = os.fsencode(name).decode(errors="backslashreplace")

    def plant(place: Place) -> Call:
        place.run(f"run{name}")
        return Call(words=("report", f"run{name}"))

    def check(_folder: Path, ended: Ended) -> str | None:
        return None if name in ended.out + ended.err or not name.isprintable() else "the name is not shown as it is"

    return Case(
        kind="names",
        name=f"run directory {shown!a}",
        plant=plant,
        codes=frozenset({0}),
        writes=("run*/report.*", "run*/MODEL_CARD.md", "run*/bom.cdx.json", "run*/MANIFEST.json"),
        check=check,
    )


def _own_link(place: Place) -> Path:
    path = place.folder / "summary.md"
    path.symlink_to("summary.md")
    return path


def _summary(title: str, where: Callable[[Place], Path]) -> Case:
    def plant(place: Place) -> Call:
        place.run()
        path = where(place)
        return Call(words=("gate", "run"), environment={"GITHUB_STEP_SUMMARY": "" if path == Path() else str(path)})

    return Case(kind="gate", name=f"GITHUB_STEP_SUMMARY {title}", plant=plant, codes=_DECIDED, lines=4, writes=_WRITES)


def _quantised(method: str, count: int | None) -> Case:
    """INT8 calibrated on the default number of images, on one that no batch divides, or on one alone."""
    values = [f'export.int8.method="{method}"', 'export.formats=["onnx", "onnx-int8"]', "method.name=plain"]
    values += ["train.epochs=1", "data.train_limit=300", "data.test_limit=60", "profile.min_seconds=0.05"]
    values += [] if count is None else [f"export.int8.count={count}"]
    return Case(
        kind="int8",
        name=f"{method} on {count or 'the default number of'} images",
        plant=lambda _: Call(words=("run", "digits", "--no-rehearsal", "--out", "run", *settings(*values))),
        codes=frozenset({0, 1, 3}),
        says="student.int8.onnx",
        seconds=SECONDS_OF_A_RUN,
        writes=("run", "run/*"),
        check=lambda _, ended: None if ended.out.startswith("digits in run\n") else "others print to stdout",
    )
