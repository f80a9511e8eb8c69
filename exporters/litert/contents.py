"""The tensors of a LiteRT model, and the rest."""

from __future__ import annotations

from ecd_deploy.exporters.contents import Contents, raw_tensor
from ecd_deploy.exporters.litert.layout import read_layout


def read_tflite(data: bytes) -> Contents:
    """Read a LiteRT model.

    Raises:
        ExportError: it is none.
    """
    layout = read_layout(data)
    tensors = tuple(raw_tensor(span.name, data[span.start : span.stop], span.dtype) for span in layout.tensors)
    rest: list[bytes] = []
    end = 0
    for start, stop in sorted((span.start, span.stop) for span in layout.tensors):
        rest.append(data[end:start])
        end = max(end, stop)
    rest.append(data[end:])
    # An operator and its output take about 300 bytes, names among them; a tensor is padded and has an entry as well.
    limit = 4096 + 512 * layout.operators + 256 * len(tensors)
    return Contents(tensors, b"".join(rest), limit, layout.problems)
