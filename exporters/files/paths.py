"""Searches written bytes for traces of the machine that wrote them.

Weights are bytes too, and spell things by chance, so a pattern is searched for everywhere only if that is negligible:
six of its bytes are fixed (each such pattern has 1e8 / 256**6 = 4e-7 hits expected in 100 MB of random bytes), or five
and two more are of a name's 67 (6e-6). Weaker ones count only inside a text, 16 printable ASCII bytes in a row: a
four-byte `/ci/` has 1e8 / 256**4 * 4 = 0.09 hits expected, and 13 * 0.37**12 = 9e-5 times as many with such
neighbours. In all fewer than 1e-4 false alarms are expected in 100 MB, and 2e-3 where a user has a one-letter name.
"""

from __future__ import annotations

import getpass
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ecd_deploy.errors import ExportError


@dataclass(frozen=True)
class _Trace:
    """What a trace looks like.

    Attributes:
        literals: of which each match holds one. Looking for these first is a hundred times as fast in weights.
        pattern: the whole of it.
    """

    literals: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


# Places that hold users' files on any machine.
_TELLTALES = (
    _Trace(
        tuple(f"/{name}/".encode() for name in ("home", "Users", "root", "private/var", "var/folders")),
        re.compile(rb"/(?:home|Users|root|private/var|var/folders)/[\w.@+-]{2,}"),
    ),
    _Trace(
        tuple(f"/{name}/".encode() for name in ("tmp", "mnt", "opt", "usr")),
        re.compile(rb"/(?:tmp|mnt|opt|usr)/[\w.@+-]{2,}"),
    ),
    _Trace(
        (b"Users\\", b"Documents and Settings\\"),
        re.compile(rb"[A-Za-z]:\\{1,2}(?:Users|Documents and Settings)\\"),
    ),
    _Trace((b"site-packages", b"dist-packages"), re.compile(rb"(?:site|dist)-packages[/\\]")),
)
# Source files by absolute path, as in stack traces.
_TELLTALES_IN_TEXT = (
    _Trace((b".py", b".cpp", b".cu", b".h"), re.compile(rb"(?<![\w.-])/(?:[\w.@+-]+/)+[\w.@+-]+\.(?:py|cpp|cu|h)\b")),
)
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")
_LEAST_TEXT = 16
_STRONG_BYTES = 6
_AROUND = 64


def refuse_local_paths(data: bytes, format_name: str) -> None:
    """Search an artefact for absolute paths of this machine, and for what looks like one of any other.

    Raises:
        ExportError: one was found; it is in the text with its offset.
    """
    strong, weak = _local_traces()
    found = [start for trace in (*strong, *_TELLTALES) for start in _anywhere(trace, data)]
    found += [start for trace in (*weak, *_TELLTALES_IN_TEXT) for start in _in_text(trace, data)]
    if not found:
        return
    start = min(found)
    text = re.match(rb"[\x20-\x7e]{0,120}", data[start : start + 120])
    shown = text.group().decode("ascii") if text else ""
    raise ExportError(f"the {format_name} artefact holds a local path at byte {start}: {shown}")


def _anywhere(trace: _Trace, data: bytes) -> Iterator[int]:
    for literal in trace.literals:
        for place in _places(literal, data):
            end = place + len(literal) + _AROUND
            if match := trace.pattern.search(data, max(place - _AROUND, 0), end):
                yield match.start()


def _in_text(trace: _Trace, data: bytes) -> Iterator[int]:
    for literal in trace.literals:
        searched = 0
        for place in _places(literal, data):
            if place < searched:
                continue
            start, searched = _text_around(place, data)
            if searched - start >= _LEAST_TEXT and (match := trace.pattern.search(data[start:searched])):
                yield start + match.start()


def _places(literal: bytes, data: bytes) -> Iterator[int]:
    place = data.find(literal)
    while place >= 0:
        yield place
        place = data.find(literal, place + 1)


def _text_around(place: int, data: bytes) -> tuple[int, int]:
    """First byte of the printable ones around a place, and the one after the last."""
    start = place
    while start > 0 and 0x20 <= data[start - 1] <= 0x7E:
        start -= 1
    match = _PRINTABLE.match(data, place)
    return start, match.end() if match else place


def _local_traces() -> tuple[list[_Trace], list[_Trace]]:
    """Traces of this machine: those with enough fixed bytes to be searched for anywhere, and the others."""
    folders = {
        Path.cwd(),
        Path.home(),
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(sysconfig.get_path("purelib")),
        *(Path(folder) for folder in site.getsitepackages()),
    }
    # The path must end there or go on below: a few bytes of weights spell /srv by chance, hardly ever /srv/.
    named = [(str(folder).encode(), rb"[/\\\0\"' ]", b"") for folder in folders if folder != Path(folder.anchor)]
    named += [(user.encode(), rb"[/\\]", rb"[/\\]") for user in _user_names()]
    strong: list[_Trace] = []
    weak: list[_Trace] = []
    for name, after, before in sorted(named):
        fixed = len(name) + bool(before) + 1
        trace = _Trace((name,), re.compile(before + re.escape(name) + after))
        (strong if fixed >= _STRONG_BYTES else weak).append(trace)
    return strong, weak


def _user_names() -> set[str]:
    try:
        return {getpass.getuser()}
    except (KeyError, OSError):  # a container whose user has no name
        return set()
