"""The numbers that a file spells out: those of the student's own graph, and what a translation is known to add."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from ecd_deploy.exporters.audit.matching import Match
from ecd_deploy.exporters.audit.results import Origin
from ecd_deploy.exporters.files.contents import Contents, FileTensor, telling

MOST_OTHERS = 4
"""Numbers of a file that neither the student's graph nor a known translation explains: no weight fits into so few."""
MOST_DIFFERENT = 48
"""Different numbers in all, round ones among them; a student's graph has fewer than twelve."""
_LARGEST_ROUND = 2.0**12
_MOST_HEADS = 1024
_FEW_INTEGERS = 64
_ONE_DOUBLE = 8
_LEAST_NORMAL = 1e-30

# Activations that are written as a product: hard sigmoid, the tanh and erf forms of GELU.
_ACTIVATIONS = (1 / 6, math.sqrt(2), math.sqrt(0.5), math.sqrt(2 / math.pi), 0.044715, math.log(2), 1 / math.log(2))


def number_findings(
    contents: Contents, traced: dict[str, Match], own: Iterable[float] | None, *, calibrated: bool
) -> Iterator[str]:
    """Compare the numbers of a file with those of the student's graph.

    Args:
        contents: of the file.
        traced: what its tensors are, by name.
        own: numbers of the student's graph; None if it has none, then the numbers are counted only.
        calibrated: whether the file has the scales of activations, which are tensors that no graph has.
    """
    structure = [
        tensor
        for tensor in contents.tensors
        if (found := traced.get(tensor.name)) is not None and found.origin is Origin.STRUCTURE and not tensor.role
    ]
    spelled = {*contents.numbers, *(() if calibrated else (n for tensor in structure for n in _numbers(tensor)))}
    if len(spelled) > MOST_DIFFERENT:
        yield f"{len(spelled)} different numbers are spelled out, at most {MOST_DIFFERENT} are expected"
    if own is None:
        return
    known = {rounded for number in _translated(own) for rounded in _roundings(number)}
    others = sorted(number for number in spelled if not _is_plain(number) and number not in known)
    if len(others) > MOST_OTHERS:
        shown = ", ".join(f"{number:.6g}" for number in others[: 2 * MOST_OTHERS])
        yield f"{len(others)} numbers are spelled out that are not in the student's graph: {shown}"


def _numbers(tensor: FileTensor) -> Iterator[float]:
    array = tensor.array
    if tensor.raw is not None and len(tensor.raw) == _ONE_DOUBLE:
        array = np.frombuffer(tensor.raw, "<f8")
    different = np.unique(array).tolist()
    if array.dtype in (np.float16, np.float32, np.float64):
        # bytes whose type the file does not say may be an integer, which as a float is next to nothing
        yield from (n for n in different if tensor.raw is None or not abs(n) < _LEAST_NORMAL)
    elif tensor.array.size <= _FEW_INTEGERS:
        yield from telling(different)


def _is_plain(number: float) -> bool:
    """Whether it is a small multiple of 1/256, infinite, or the largest of a type: nobody's."""
    if not math.isfinite(number):
        return True
    limits = (float(np.finfo(np.float32).max), float(np.finfo(np.float16).max))
    return (abs(number) <= _LARGEST_ROUND and (number * 256).is_integer()) or abs(number) in limits


def _roundings(number: float) -> Iterator[float]:
    """In each precision, and in the seven digits that a graph of text has."""
    for sign in (number, -number):
        with np.errstate(over="ignore"):
            yield from (sign, float(np.float32(sign)), float(np.float16(sign)), float(f"{sign:e}"))


def _translated(own: Iterable[float]) -> tuple[float, ...]:
    """The numbers of a graph and those that translations make of them.

    Attention is scaled by the root of a head's size, half of it on each side, and a division by a number is written
    as a product.
    """
    given = tuple(own)
    roots = (root for size in range(2, _MOST_HEADS) for root in (size**-0.5, size**-0.25))
    return (*given, *(1 / number for number in given if number), *_ACTIVATIONS, *roots)
