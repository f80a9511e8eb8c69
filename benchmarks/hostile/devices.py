"""Devices whose login shells and answers are not what was hoped for, by an `ssh` of our own, and foreign ONNX files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.hostile.case import Call, Case, Place
from ecd_deploy.measure.latency.measurement import measure_onnx
from ecd_deploy.recipe.profile import ProfileConfig

_BAD, _MEASURED = frozenset({4}), frozenset({0, 3})
_SHELL = 'sh -c "$command"'
_GREETINGS = {
    "a greeting": "echo welcome",
    "a greeting that is JSON": "echo '{\"a\": 1}'; echo '[1, 2]'; echo 7",
    "a greeting without a line's end": "printf 'welcome to the device'",
    "a greeting of escapes and of no UTF-8": "printf '\\033[2J\\377\\n'",
    "a greeting that looks like a state": 'echo \'{"state": "\\u001b[2J"}\'; echo \'{"state": {}}\'',
    "a greeting of 10,000 lines": "yes welcome | head -n 10000",
    "a greeting of one long line": "head -c 500000 /dev/zero | tr '\\0' w; echo",
    "a warning": "echo 'warning: locale' >&2",
}
_ANSWERS = {
    "nothing": "true",
    "another document": "echo '{\"a\": 1}'",
    "a result that is a number": "echo '{\"result\": 1}'",
    "a result that is null": "echo '{\"result\": null}'",
    "a result without percentiles": 'echo \'{"result": {"schema_version": 1}}\'',
    "brackets": "head -c 300000 /dev/zero | tr '\\0' '['; echo",
    "objects nested deeply": "printf '{\"result\": '; yes '{\"a\":' | head -n 90000 | tr -d '\\n'; echo",
    "a number of 6,000 digits": "printf '{\"result\": %s}\\n' $(head -c 6000 /dev/zero | tr '\\0' 9)",
    "lines without end": "exec yes welcome",
    "JSON lines without end": 'exec yes \'{"state": "x"}\'',
    "states without end": 'while true; do echo \'{"state": "sending"}\'; echo \'{"state": "measuring"}\'; done',
    "a line without end": "exec tr '\\0' ' ' < /dev/zero",
    "errors without end": "yes error >&2 & sleep 1; kill $!; exit 255",
    "an error line without end": "head -c 50000000 /dev/zero | tr '\\0' e >&2; exit 255",
    "escapes": "printf '\\033]0;title\\007broken\\n' >&2; exit 3",
    "an error of escapes": 'printf "%s\\n" \'{"error": "\\u001b[2Jits disk \\n is full"}\'',
    "an error of lists": 'echo \'{"error": [1, 2, {"a": 3}]}\'',
    "no connection": "echo 'ssh: connect to host: No route to host' >&2; exit 255",
    "no Python": "exit 127",
    "a shell that allows no commands": "echo 'This account is currently not available.'; exit 1",
}
_CONTRADICTIONS: dict[str, Mapping[str, Any]] = {
    "no percentiles": {"percentiles": []},
    "samples of another measurement": {"samples_ms": [1.0] * 1000},
    "no samples": {"samples_ms": []},
    "a negative sample": {"samples_ms": [-1.0, 1.0]},
    "a sample that is text": {"samples_ms": ["fast"]},
    "a negative loading time": {"load_ms": -1.0},
    "a p50 outside its samples": {"p50_range_ms": [0.0, 1e9]},
    "another number of threads": {"threads": 64},
    "another batch size": {"batch_size": 8},
    "a contention without a reason": {"contended": True, "reasons": []},
    "reasons of escapes": {"contended": True, "reasons": ["\x1b[2J"]},
    "an unknown key of escapes": {"\x1b[2J": 1},
    "a number that is none": {"cpu_over_wall": float("nan")},
    "an infinite number": {"cpu_over_wall": float("inf")},
}


def cases() -> list[Case]:
    """By `profile RUN --host`, and foreign files by `profile MODEL`."""
    return [
        *(_device(f"{title}", f"{script}; {_SHELL}", codes=_MEASURED) for title, script in _GREETINGS.items()),
        *(
            _device(f"login shell {shell}", f'exec {shell} -c "$command"', codes=_MEASURED)
            for shell in ("csh", "tcsh", "zsh", "fish", "bash", "dash")
            if shutil.which(shell)
        ),
        _device("Python in the home directory", f"HOME={{folder}} {_SHELL}", codes=_MEASURED, python="~/my python/py"),
        _device("no such Python", _SHELL, python="~/absent/python", says="absent"),
        _device("a Python of escapes", _SHELL, python="\x1b[2Jpython", says="python"),
        *(_device(f"answers {title}", script) for title, script in _ANSWERS.items()),
        *(_device(f"answers with {title}", None, change=change) for title, change in _CONTRADICTIONS.items()),
        _device("no ssh", "", path="", says="no ssh on this machine"),
        _device("ssh that may not be run", "", path="", mode=0o644, says="ssh"),
        *(_foreign(title, model) for title, model in _models().items()),
        *(_foreign(title, partial(bytes, content)) for title, content in _NO_MODELS.items()),
    ]


def _device(
    name: str,
    script: str | None,
    *,
    codes: frozenset[int] = _BAD,
    says: str = "",
    python: str = sys.executable,
    change: Mapping[str, Any] | None = None,
    path: str = "/usr/bin:/bin",
    mode: int = 0o755,
) -> Case:
    def plant(place: Place) -> Call:
        place.run()
        if python.startswith("~"):
            place.write("my python/py", f'#!/bin/sh\nexec {sys.executable} "$@"\n').chmod(0o755)
        if change is not None:
            place.write("answer", _answer(change) + "\n")
        body = f"cat {place.folder}/answer" if script is None else script.replace("{folder}", str(place.folder))
        folder = place.folder / "bin"
        folder.mkdir()
        if body:
            place.write("bin/ssh", f"#!/bin/sh\nfor command; do :; done\n{body}\n").chmod(mode)
        words = ("profile", "run", "--host", "pi@device", "--python", python, "--timeout", "60")
        if mode != 0o755:
            place.write("bin/ssh", "#!/bin/sh\n").chmod(mode)
        return Call(words=words, environment={"PATH": os.pathsep.join(filter(None, (str(folder), path)))})

    writes = ("run/profile*", "run/MANIFEST.json") if codes == _MEASURED else ()
    return Case(kind="device", name=name, plant=plant, codes=codes, says=says, lines=14, writes=writes, seconds=90.0)


@cache
def _honest() -> Mapping[str, Any]:
    """A result as a device gives it."""
    quick = ProfileConfig(min_seconds=0.05, min_samples=50, warmup_seconds=0.0)
    found: dict[str, Any] = measure_onnx(_linear(), quick).model_dump(mode="json")
    return found


def _answer(change: Mapping[str, Any]) -> str:
    honest = _honest()
    latency = {**honest["latency"], "contended": False, "reasons": [], **change}
    return json.dumps({"result": {**honest, "latency": latency}})


# Foreign ONNX files: (batch, 4) -> logits.


def _model(nodes: list[NodeProto], *initialisers: TensorProto) -> bytes:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [images], [logits], list(initialisers))
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def _tensor(name: str, values: object, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def _linear() -> bytes:
    return _model([helper.make_node("MatMul", ["images", "w"], ["logits"])], _tensor("w", np.ones((4, 2))))


def _loop(*condition: NodeProto, constants: tuple[TensorProto, ...]) -> bytes:
    """A Loop without a count, which goes on if `going` is true at its start."""
    kept, going = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("kept", "still"))
    before, after = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    inner = [helper.make_node("Identity", ["still"], ["kept"]), helper.make_node("Relu", ["x"], ["y"])]
    body = helper.make_graph(inner, "body", [count, going, before], [kept, after])
    return _model([*condition, helper.make_node("Loop", ["", "going", "images"], ["logits"], body=body)], *constants)


def _compared(operator: str, reduce: str, value: float) -> bytes:
    """A Loop that goes on where a number of the image is above or below a value."""
    nodes = (
        helper.make_node(reduce, ["images"], ["number"], keepdims=0),
        helper.make_node(operator, ["number", "value"], ["going"]),
    )
    return _loop(*nodes, constants=(_tensor("value", value),))


def _expanded(first: str, factor: float) -> bytes:
    """An output whose size is a number of the image times a factor."""
    nodes = [
        helper.make_node(first, ["images"], ["number"], keepdims=0),
        helper.make_node("Mul", ["number", "factor"], ["product"]),
        helper.make_node("Abs", ["product"], ["size"]),
        helper.make_node("Cast", ["size"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "one"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["logits"]),
    ]
    return _model(nodes, _tensor("factor", factor), _tensor("one", [1], np.int64))


def _outside() -> bytes:
    weight = _tensor("w", np.ones((4, 2)))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../etc/hostname")
    return _model([helper.make_node("MatMul", ["images", "w"], ["logits"])], weight)


def _constant_expansion() -> bytes:
    shape = _tensor("shape", [60_000, 60_000, 4], np.int64)
    return _model([helper.make_node("ConstantOfShape", ["shape"], ["logits"])], shape)


def _tiled() -> bytes:
    """Every step is sixteen times as large as the one before."""
    nodes = [helper.make_node("Tile", [f"t{n}" if n else "images", "sixteen"], [f"t{n + 1}"]) for n in range(8)]
    nodes.append(helper.make_node("Identity", ["t8"], ["logits"]))
    return _model(nodes, _tensor("sixteen", [16, 1], np.int64))


def _models() -> dict[str, Callable[[], bytes]]:
    return {
        "a loop that never ends": lambda: _loop(constants=(_tensor("going", True, np.bool_),)),
        "a loop while the image's sum is above 0": lambda: _compared("Greater", "ReduceSum", 0.0),
        "a loop while the image's sum is below 0": lambda: _compared("Less", "ReduceSum", 0.0),
        "a loop while the image's largest number is below 1": lambda: _compared("Less", "ReduceMax", 1.0),
        "an output of 57 GB": _constant_expansion,
        "an output that grows with the image": lambda: _expanded("ReduceMax", 1e11),
        "an output that grows with the image's mean": lambda: _expanded("ReduceMean", -1e11),
        "eight steps, each sixteen times as large": _tiled,
        "weights in a file outside": _outside,
        "weights that are no numbers": lambda: _model(
            [helper.make_node("MatMul", ["images", "w"], ["logits"])], _tensor("w", np.full((4, 2), np.nan))
        ),
        "an operator of another domain": lambda: _model(
            [helper.make_node("Evil", ["images"], ["logits"], domain="com.example")]
        ),
        "no node": lambda: _model([]),
    }


_NO_MODELS = {
    "an empty file": b"",
    "a cut ONNX": _linear()[:-20],
    "a pickle": b"\x80\x02cposix\nsystem\nq\0X\x04\0\0\0exitq\x01\x85q\x02Rq\x03.",
    "text": b"hello\n",
    "the first byte alone": b"\x08",
    "the first byte and noise": b"\x08\x0a" + bytes(range(256)) * 40,
}


def _foreign(name: str, make: Callable[[], bytes]) -> Case:
    def plant(place: Place) -> Call:
        place.write("model.onnx", make())
        return Call(words=("profile", "model.onnx"))

    return Case(kind="ONNX", name=name, plant=plant, codes=_BAD, lines=2, seconds=110.0)
