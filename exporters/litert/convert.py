"""Converts a program of `torch.export` to LiteRT: run as a file by a Python that has litert-torch, not this package.

python convert.py PROGRAM RESULT SHAPE, with SHAPE as in 1,3,32,32.
"""

from __future__ import annotations

import sys


def main(program: str, result: str, shape: str) -> None:
    """Write the program for images of this shape."""
    import litert_torch
    import torch

    module = torch.export.load(program).module()
    module.eval = lambda: module  # type: ignore[method-assign]  # the converter asks for it; an exported program is in evaluation mode
    sizes = tuple(int(size) for size in shape.split(","))
    litert_torch.convert(module, (torch.zeros(sizes),)).export(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
