"""Quantises a LiteRT model: run as a file by a Python that has ai-edge-quantizer, not this package.

python quantise.py MODEL IMAGES.npy RESULT channel|tensor

It calibrates the model, prints the names of its operators as one line of JSON, and then, for each line of names that it
is given, writes RESULT with these in INT8 and prints a line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path


def main(model: str, images: str, result: str, granularity: str) -> None:
    """Calibrate once, then quantise as often as is asked."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print, and only replies may be read
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    parsed = tfl_flatbuffer_utils.read_model(model)
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    (graph,) = parsed.subgraphs
    scopes = {}
    for index, operator in enumerate(graph.operators):
        kind = kinds.get(parsed.operatorCodes[operator.opcodeIndex].builtinCode, "?")
        scopes[f"{index}/{kind}"] = tfl_flatbuffer_utils.get_op_scope(operator, graph.tensors)

    def quantiser_of(names: list[str]) -> quantizer.Quantizer:
        made = quantizer.Quantizer(model)
        every, steps = qtyping.TFLOperationName, qtyping.QuantGranularity
        for name in names:
            expression = f"^{re.escape(scopes[name])}$"
            by = steps.CHANNELWISE if granularity == "channel" else steps.TENSORWISE
            made.add_static_config(expression, every.ALL_SUPPORTED, 8, 8, by)
        for boundary in (every.INPUT, every.OUTPUT):  # images and logits stay float32
            made.update_quantization_recipe(".*", boundary, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
        return made

    batches = [{"images": image[np.newaxis]} for image in np.load(images)]
    ranges = quantiser_of(list(scopes)).calibrate({None: batches}, num_threads=1)
    print(json.dumps(list(scopes)), file=replies)
    for line in sys.stdin:
        made = quantiser_of(json.loads(line)).quantize(ranges, enable_progress_report=False)
        Path(result).write_bytes(made.quantized_model)
        print("written", file=replies)


if __name__ == "__main__":
    main(*sys.argv[1:])
