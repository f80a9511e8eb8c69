from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def convolution_model(size: int | str = "batch") -> bytes:
    """3x3 convolution of 2 to 4 channels on 8x8, ReLU, mean, then 4 to 5 classes."""
    generator = np.random.default_rng(0)
    weights = {
        "stem.weight": generator.standard_normal((4, 2, 3, 3)).astype(np.float32),
        "head.weight": generator.standard_normal((5, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "stem.weight"], ["stem"], name="node_conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["stem"], ["relu"], name="node_relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"], name="node_pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="node_flat"),
        helper.make_node("Gemm", ["flat", "head.weight"], ["logits"], name="node_gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [size, 2, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [size, 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
