"""The runtimes that a model may be for: which one, by its contents, and what loads it there.

Other runtimes than onnxruntime are given one image at a time.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .sessions import images_for, open_session

if TYPE_CHECKING:
    from collections.abc import Callable

ONNXRUNTIME = "onnxruntime"
# What their file begins with or, as a zip, holds; the module and the package that run it.
_SIGNATURES = {b"TFL3": "litert", b"ET12": "executorch"}
_MEMBERS = {"student.ncnn.param": "ncnn", "student.xml": "openvino", "constants.pkl": "libtorch"}
_MODULES = {"executorch": "executorch.runtime", "libtorch": "torch", "litert": "ai_edge_litert.interpreter"}
_PACKAGES = {"libtorch": "torch", "litert": "ai-edge-litert"}


@dataclass(frozen=True)
class Opened:
    """A model that is ready.

    Attributes:
        run: takes images (1, *shape) as a numpy array of type `dtype`, and gives their logits as one.
        shape: of one image.
        dtype: numpy's name of the images' type.
    """

    run: Callable[[Any], Any]
    shape: list[int]
    dtype: str = "float32"


@dataclass(frozen=True)
class Work:
    """What is timed: `run` takes noise of this shape, a batch of it, through the model."""

    run: Callable[[], object]
    shape: list[int]


def runtime_of(path: str) -> str:
    """Which runtime a file is for; onnxruntime where its contents do not say."""
    with Path(path).open("rb") as file:
        begin = file.read(8)
    if begin[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            names = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
        return next((_MEMBERS[name] for name in sorted(names) if name in _MEMBERS), ONNXRUNTIME)
    return _SIGNATURES.get(begin[4:], ONNXRUNTIME)


def version_of(runtime: str) -> str:
    """Name and version of what runs a file."""
    return f"{runtime} {version(_PACKAGES.get(runtime, runtime))}"


def import_runtime(runtime: str) -> None:
    """Import it; of a cold start that is not the time that the model takes to load."""
    import_module(_MODULES.get(runtime, runtime))


def load(path: str, threads: int, provider: str | None) -> Callable[[int], Work]:
    """Load a file by its runtime; what comes back makes the work for a batch size.

    Raises:
        ValueError: a provider of onnxruntime is asked for, and another runtime runs this file.
    """
    runtime = runtime_of(path)
    if runtime == ONNXRUNTIME:
        session = open_session(path, threads, provider)
        return lambda batch_size: _session_work(session, batch_size)
    if provider is not None:
        raise ValueError(f"--provider is onnxruntime's, and {runtime} runs this file")
    _set_threads(runtime, threads)
    opened = open_file(runtime, path, threads)
    return lambda batch_size: _work(opened, batch_size)


def open_file(runtime: str, path: str, threads: int) -> Opened:
    """Open a file of a runtime other than onnxruntime; torch and ExecuTorch keep the threads of the process."""
    return _OPENERS[runtime](path, threads)


def _session_work(session: Any, batch_size: int) -> Work:
    images = images_for(session, batch_size)
    return Work(lambda: session.run(None, images), list(next(iter(images.values())).shape))


def _work(opened: Opened, batch_size: int) -> Work:
    import numpy as np

    shape = [batch_size, *opened.shape]
    images = np.random.default_rng(0).standard_normal(shape).astype(opened.dtype)
    return Work(lambda: [opened.run(image[np.newaxis]) for image in images], shape)


def _set_threads(runtime: str, threads: int) -> None:
    if runtime in ("executorch", "libtorch"):
        torch: Any = import_module("torch")
        torch.set_num_threads(threads)
    if runtime == "executorch":
        # Its pool has a thread a processor, whatever torch has, and this is the only way to another number.
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

        _unsafe_reset_threadpool(threads)


def _open_executorch(path: str, threads: int) -> Opened:  # noqa: ARG001 - see `_set_threads`
    from executorch.runtime import Runtime

    torch: Any = import_module("torch")
    program: Any = Runtime.get().load_program(Path(path))
    method = program.load_method("forward")
    shape = json.loads(program.load_method("ecd_deploy").execute([])[0])["input_shape"]
    return Opened(lambda images: method.execute([torch.from_numpy(images)])[0].numpy().copy(), shape)


def _open_libtorch(path: str, threads: int) -> Opened:  # noqa: ARG001 - see `_set_threads`
    torch: Any = import_module("torch")
    texts = {"metadata.json": ""}
    module = torch.jit.load(path, _extra_files=texts)

    def run(images: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return Opened(run, json.loads(texts["metadata.json"])["input_shape"])


def _open_litert(path: str, threads: int) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: Any) -> Any:
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    return Opened(run, [int(size) for size in given["shape"][1:]])


def _open_ncnn(path: str, threads: int) -> Opened:
    import ncnn
    import numpy as np

    net: Any = ncnn.Net()
    net.opt.num_threads = threads
    # On processors with float16 ncnn computes in it by default, which is not what was validated.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = False
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        shape = json.loads(archive.read("metadata.json"))["input_shape"]
        graph, weights = (archive.extract(f"student.ncnn.{part}", folder) for part in ("param", "bin"))
        if net.load_param(graph) or net.load_model(weights):
            raise ValueError("it does not fit together")

    def run(images: Any) -> Any:
        image = np.ascontiguousarray(images[0])  # the input is a view of it
        extractor = net.create_extractor()
        extractor.input("images", ncnn.Mat(image))
        failed, logits = extractor.extract("logits")
        if failed:
            raise RuntimeError("ncnn cannot run the file")
        return np.array(logits, dtype=np.float32)[np.newaxis]

    return Opened(run, shape)


def _open_openvino(path: str, threads: int) -> Opened:
    import openvino

    core: Any = openvino.Core()
    with zipfile.ZipFile(path) as archive:
        model = core.read_model(model=archive.read("student.xml"), weights=archive.read("student.bin"))
    # The default on some processors is bfloat16, which is not what was validated.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
    given, logits = compiled.input(0), compiled.output(0)
    shape = [size.get_length() for size in list(given.partial_shape)[1:]]
    return Opened(lambda images: compiled(images)[logits].copy(), shape, given.get_element_type().to_dtype().name)


_OPENERS = {
    "executorch": _open_executorch,
    "libtorch": _open_libtorch,
    "litert": _open_litert,
    "ncnn": _open_ncnn,
    "openvino": _open_openvino,
}
