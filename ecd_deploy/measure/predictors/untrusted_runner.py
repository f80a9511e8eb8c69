"""Opens an untrusted ONNX model and runs it on several images, within limits: the child process of `untrusted`.

Takes limits as arguments and the model on standard input; answers with one line of JSON. It imports nothing of
this package, so that it can be started in an isolated interpreter from an empty folder.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# Windows has none: the caller's time limit alone holds there.
resource: Any = import_module("resource") if find_spec("resource") else None

_MOST_ELEMENTS = 100_000_000
_BATCHES = (1, 2)
_ORT = b"ORTM"
"""Onnxruntime's own format, which it opens only with all tensors inside."""


def main() -> None:
    """Set the limits before anything is parsed, then open, run and describe the model."""
    memory, seconds, batch_size = map(int, sys.argv[1:4])
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    data = sys.stdin.buffer.read()
    try:
        answer = _described(data, batch_size)
    except MemoryError:
        answer = {"problem": f"needs more than {memory} bytes"}
    except Exception as error:  # noqa: BLE001 - whatever a hostile file provokes is the answer
        answer = {"problem": f"raises {type(error).__name__}: {error}"[:500]}
    sys.stdout.write(json.dumps(answer))


def _described(data: bytes, batch_size: int) -> dict[str, Any]:
    import numpy as np
    import onnxruntime as ort

    tensors = () if data[4:8] == _ORT else _tensors(_graph(data))
    outside = [tensor.name for tensor in tensors if tensor.data_location or tensor.external_data]
    if outside:
        return {"problem": f"keeps {outside[0] or 'a constant'} in another file"}
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    for batch in sorted({*_BATCHES, batch_size}):
        shapes = {
            value.name: [
                size if isinstance(size, int) and size > 0 else batch if at == 0 else 1
                for at, size in enumerate(value.shape)
            ]
            for value in session.get_inputs()
        }
        for shape in shapes.values():
            if int(np.prod(shape, dtype=object)) > _MOST_ELEMENTS:
                return {"problem": f"takes an input of shape {shape}"}
        images = _IMAGES if batch in _BATCHES else {"a picture": _picture}
        for what, image in images.items():
            feeds = {value.name: _of_type(image(shapes[value.name]), value.type) for value in session.get_inputs()}
            results = session.run(None, feeds)
            finite = all(bool(np.isfinite(result).all()) for result in results if result.dtype.kind == "f")
            if not finite and image not in (_noise, _dark):  # which have values outside of what a pixel can be
                return {"problem": f"gives numbers that are not finite on an image of {what}"}
    return {"problem": None}


def _zeros(shape: list[int]) -> Any:
    import numpy as np

    return np.zeros(shape)


def _noise(shape: list[int]) -> Any:
    """The numbers on which the device runner measures."""
    import numpy as np

    return np.random.default_rng(0).standard_normal(shape)


def _light(shape: list[int]) -> Any:
    import numpy as np

    return np.ones(shape)


def _dark(shape: list[int]) -> Any:
    """Below zero, as normalised pixels are."""
    import numpy as np

    return np.full(shape, -1.0)


def _picture(shape: list[int]) -> Any:
    """Pixels of 0 to 1 that change slowly from place to place, as those of a photograph do."""
    import numpy as np

    count = int(np.prod(shape))
    return (0.5 + 0.5 * np.sin(np.arange(count) / 7.0)).reshape(shape)


_IMAGES = {"zeros": _zeros, "noise": _noise, "light": _light, "dark": _dark, "a picture": _picture}


def _of_type(image: Any, kind: str) -> Any:
    import numpy as np

    if kind == "tensor(uint8)":
        return (np.clip(image, 0, 1) * 255).astype(np.uint8)
    return image.astype(np.float16 if kind == "tensor(float16)" else np.float32)


def _graph(data: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(data).graph


def _tensors(graph: Any) -> Any:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _tensors(inner)


if __name__ == "__main__":
    main()
