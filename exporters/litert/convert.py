"""Converts a program of `torch.export` to LiteRT: run as a file by a Python that has litert-torch, not this package.

python convert.py PROGRAM RESULT SHAPE METADATA_NAME METADATA, with SHAPE as in 1,3,32,32.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(program: str, result: str, shape: str, name: str, text: str) -> None:
    """Write the program, its metadata beside its graph, with names that say what goes in and comes out."""
    import litert_torch
    import torch
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    module = torch.export.load(program).module()
    module.eval = lambda: module  # type: ignore[method-assign]  # the converter asks for it; an exported program is in evaluation mode
    sizes = tuple(int(size) for size in shape.split(","))
    litert_torch.convert(module, (torch.zeros(sizes),)).export(result)
    model = flatbuffer_utils.read_model(result)
    (graph,) = model.subgraphs
    for names, indices in (("images", graph.inputs), ("logits", graph.outputs)):
        graph.tensors[indices[0]].name = names
    for signature in model.signatureDefs:
        signature.inputs[0].name, signature.outputs[0].name = "images", "logits"
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(text.encode())
    model.buffers.append(buffer)
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    Path(result).write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))


if __name__ == "__main__":
    main(*sys.argv[1:])
