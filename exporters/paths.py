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
from pathlib import Path

from ecd_deploy.errors import ExportError

# Places that hold users' files on any machine.
_TELLTALES = (
    rb"/(?:home|Users|root|private/var|var/folders)/[\w.@+-]{2,}",
    rb"/(?:tmp|mnt|opt|usr)/[\w.@+-]{2,}",
    rb"[A-Za-z]:\\{1,2}(?:Users|Documents and Settings)\\",
    rb"(?:site|dist)-packages[/\\]",
)
# Source files by absolute path, as in stack traces.
_TELLTALES_IN_TEXT = (rb"(?<![\w.-])/(?:[\w.@+-]+/)+[\w.@+-]+\.(?:py|cpp|cu|h)\b",)
_TEXT = re.compile(rb"[\x20-\x7e]{16,}")
_STRONG_BYTES = 6


def refuse_local_paths(data: bytes, format_name: str) -> None:
    """Search an artefact for absolute paths of this machine, and for what looks like one of any other.

    Raises:
        ExportError: one was found; it is in the text with its offset.
    """
    strong, weak = _local_patterns()
    start = _first(re.compile(b"|".join((*strong, *_TELLTALES))), data)
    in_text = re.compile(b"|".join((*weak, *_TELLTALES_IN_TEXT)))
    if start is None:
        hits = ((run.start(), in_text.search(run.group())) for run in _TEXT.finditer(data))
        start = next((offset + hit.start() for offset, hit in hits if hit is not None), None)
    if start is None:
        return
    text = re.match(rb"[\x20-\x7e]{0,120}", data[start : start + 120])
    shown = text.group().decode("ascii") if text else ""
    raise ExportError(f"the {format_name} artefact holds a local path at byte {start}: {shown}")


def _first(pattern: re.Pattern[bytes], data: bytes) -> int | None:
    match = pattern.search(data)
    return None if match is None else match.start()


def _local_patterns() -> tuple[list[bytes], list[bytes]]:
    """Patterns of this machine: those with enough fixed bytes to be searched for anywhere, and the others."""
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
    strong: list[bytes] = []
    weak: list[bytes] = []
    for name, after, before in sorted(named):
        fixed = len(name) + bool(before) + 1
        (strong if fixed >= _STRONG_BYTES else weak).append(before + re.escape(name) + after)
    return strong, weak


def _user_names() -> set[str]:
    try:
        return {getpass.getuser()}
    except (KeyError, OSError):  # a container whose user has no name
        return set()
