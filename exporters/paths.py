"""Searches written bytes for traces of the machine that wrote them."""

from __future__ import annotations

import getpass
import re
import site
import sys
import sysconfig
from pathlib import Path

from ecd_deploy.errors import ExportError

# Places that hold users' files on any machine, and source files by absolute path, as in stack traces.
_TELLTALES = (
    rb"/(?:home|Users|root|tmp|private/var|var/folders|mnt|opt|usr)/[\w.@+-]{2,}",
    rb"[A-Za-z]:\\{1,2}(?:Users|Documents and Settings)\\",
    rb"(?<![\w.-])/(?:[\w.@+-]+/)+[\w.@+-]+\.(?:py|cpp|cu|h)\b",
    rb"(?:site|dist)-packages[/\\]",
)


def refuse_local_paths(data: bytes, format_name: str) -> None:
    """Search an artefact for absolute paths of this machine, and for what looks like one of any other.

    Raises:
        ExportError: one was found; it is in the text with its offset.
    """
    match = re.search(b"|".join((*_local_patterns(), *_TELLTALES)), data)
    if match is None:
        return
    text = re.match(rb"[\x20-\x7e]{0,120}", data[match.start() :])
    shown = text.group().decode("ascii") if text else ""
    raise ExportError(f"the {format_name} artefact holds a local path at byte {match.start()}: {shown}")


def _local_patterns() -> tuple[bytes, ...]:
    folders = {
        Path.cwd(),
        Path.home(),
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(sysconfig.get_path("purelib")),
        *(Path(folder) for folder in site.getsitepackages()),
    }
    # The path must end there or go on below: a few bytes of weights spell /srv by chance, hardly ever /srv/.
    patterns = [
        re.escape(str(folder).encode()) + rb"[/\\\0\"' ]" for folder in folders if folder != Path(folder.anchor)
    ]
    patterns += [rb"[/\\]" + re.escape(user.encode()) + rb"[/\\]" for user in _user_names()]
    return tuple(sorted(patterns))


def _user_names() -> set[str]:
    try:
        return {getpass.getuser()}
    except (KeyError, OSError):  # a container whose user has no name
        return set()
