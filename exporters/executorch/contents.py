"""The tensors of an ExecuTorch program: those that a delegate takes by name, and the constants of its operators."""

from __future__ import annotations

from ecd_deploy.exporters.executorch.layout import read_layout
from ecd_deploy.exporters.files.contents import Contents, outside

_ALIGNMENT = 128


def read_pte(data: bytes) -> Contents:
    """Read an ExecuTorch program; a delegate that keeps tensors in its own blob exceeds what is allowed beside them.

    Raises:
        ExportError: it is none.
    """
    layout = read_layout(data)
    tensors = tuple(span.read(data) for span in layout.tensors)
    # Segments are padded; a node of the delegate takes about 300 bytes, and brings a tensor or two.
    limit = 16_384 + (_ALIGNMENT + 1024) * len(tensors) + 256 * layout.values
    return Contents(tensors, outside(data, layout.tensors), limit, layout.problems)
