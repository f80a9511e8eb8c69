"""Ways in which something of the teacher can get into the bytes of an artefact, planted in files that were written."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Plant = Callable[[bytes, NDArray[np.float32]], bytes]
"""Changes the bytes of a file; the secret is a weight of the teacher's."""


@dataclass(frozen=True)
class ArtefactLeak:
    """A leak that is planted after the export.

    Attributes:
        name: what is done.
        format: of the file.
        plant: does it.
        finding: a pattern of what the audit says.
    """

    name: str
    format: str
    plant: Plant
    finding: str


def _onnx(change: Callable[[onnx.ModelProto, NDArray[np.float32]], None]) -> Plant:
    def plant(data: bytes, secret: NDArray[np.float32]) -> bytes:
        model = onnx.load_model_from_string(data)
        change(model, secret)
        changed: bytes = model.SerializeToString(deterministic=True)
        return changed

    return plant


def _initialiser(model: onnx.ModelProto, suffix: str) -> onnx.TensorProto:
    found: onnx.TensorProto = next(t for t in model.graph.initializer if t.name.endswith(suffix))
    return found


def _extra(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(secret, "spare"))


def _unused_branch(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    constant = helper.make_node("Constant", [], ["hidden"], value=numpy_helper.from_array(secret, "hidden"))
    model.graph.node.extend([constant, helper.make_node("Relu", ["hidden"], ["nowhere"])])


def _folded(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    bias = _initialiser(model, "weight_bias")
    values = numpy_helper.to_array(bias)
    changed = values + 1e-3 * np.resize(secret, values.shape).astype(np.float32)
    bias.CopyFrom(numpy_helper.from_array(changed, bias.name))


def _last_bits(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    weight = _initialiser(model, "fc.weight")
    bits = numpy_helper.to_array(weight).view(np.uint32)
    stolen = (np.resize(secret, bits.shape).view(np.uint32) >> 16) & 0xFF
    weight.CopyFrom(numpy_helper.from_array(((bits & 0xFFFFFF00) | stolen).view(np.float32), weight.name))


def _sidecar(model: onnx.ModelProto, _secret: NDArray[np.float32]) -> None:
    tensor = _initialiser(model, "fc.weight")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="student.onnx.data")


def _metadata(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    model.metadata_props.add(key="note", value=secret.tobytes().hex())


def _attribute(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("table", secret.reshape(-1)[:64].tolist()))


def _doc_string(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    model.graph.node[0].doc_string = secret.tobytes().hex()


def _name(model: onnx.ModelProto, _secret: NDArray[np.float32]) -> None:
    model.graph.node[0].name = "teacher.layer1.0.conv1"


def _subgraph(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    output = helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, list(secret.shape))
    constant = helper.make_node("Constant", [], ["inner"], value=numpy_helper.from_array(secret))
    branch = helper.make_graph([constant], "branch", [], [output])
    model.graph.node.append(helper.make_node("If", ["condition"], ["never"], then_branch=branch, else_branch=branch))


def _function(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    constant = helper.make_node("Constant", [], ["inner"], value=numpy_helper.from_array(secret))
    model.functions.append(helper.make_function("own", "Hidden", [], ["inner"], [constant], model.opset_import))


def _text_of_value(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    model.graph.output[0].doc_string = secret.tobytes().hex()


def _metadata_of_node(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    model.graph.node[0].metadata_props.add(key="note", value=secret.tobytes().hex())


def _scalars(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    for number, value in enumerate(secret.reshape(-1)[:20]):
        model.graph.node[number % len(model.graph.node)].attribute.append(
            helper.make_attribute(f"slope{number}", float(value))
        )


def _integers(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    bits = secret.reshape(-1)[:14].view(np.int32).tolist()
    model.graph.node[0].attribute.append(helper.make_attribute("axes", bits))


def _step(model: onnx.ModelProto, secret: NDArray[np.float32]) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4)
    values = numpy_helper.to_array(tensor)
    noise = np.where(np.resize(secret, values.shape) > 0, 2, -2)
    tensor.CopyFrom(numpy_helper.from_array(np.clip(values + noise, -128, 127).astype(np.int8), tensor.name))


def _tail(data: bytes, secret: NDArray[np.float32]) -> bytes:
    return data + b"\xfa\x7f" + b"\x80\x04" + secret.tobytes()[:512]


def _safetensors(data: bytes, secret: NDArray[np.float32]) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    content = secret.tobytes()
    header["spare"] = {"dtype": "F32", "shape": [secret.size], "data_offsets": [len(body), len(body) + len(content)]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body + content


def _padded_header(data: bytes, secret: NDArray[np.float32]) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["note"] = secret.tobytes().hex()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _comment(data: bytes, secret: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = secret.tobytes()[:512]
    return buffer.getvalue()


def _padding(data: bytes, secret: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w") as changed:
        for entry in archive.infolist():
            copied = zipfile.ZipInfo(entry.filename)
            copied.extra = b"FB\x40\x00" + secret.tobytes()[:64]
            changed.writestr(copied, archive.read(entry))
    return buffer.getvalue()


def _zip(member: str, *, compress: bool = False) -> Plant:
    def plant(data: bytes, secret: NDArray[np.float32]) -> bytes:
        buffer = io.BytesIO(data)
        with zipfile.ZipFile(buffer, "a") as archive:
            kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            archive.writestr(member, secret.tobytes(), compress_type=kind)
        return buffer.getvalue()

    return plant


ARTEFACT_LEAKS = (
    ArtefactLeak("an extra initialiser", "onnx", _onnx(_extra), r"spare is not used by any node"),
    ArtefactLeak("a constant in an unused branch", "onnx", _onnx(_unused_branch), r"hidden, float32 .* comes from no"),
    ArtefactLeak("a constant folded into a bias", "onnx", _onnx(_folded), r"weight_bias, float32 .* comes from no"),
    ArtefactLeak("the last bits of a weight", "onnx", _onnx(_last_bits), r"fc\.weight, float32 .* comes from no"),
    ArtefactLeak("an external-data sidecar", "onnx", _onnx(_sidecar), r"fc\.weight is kept in another file"),
    ArtefactLeak("an entry of metadata", "onnx", _onnx(_metadata), r"entry of metadata 'note'"),
    ArtefactLeak("a long attribute", "onnx", _onnx(_attribute), r"attribute table of .* holds 64 numbers"),
    ArtefactLeak("a doc string", "onnx", _onnx(_doc_string), r"has a text beside what it does"),
    ArtefactLeak("a name of the teacher side", "onnx", _onnx(_name), r"the bytes name teacher\."),
    ArtefactLeak("a graph in a branch never taken", "onnx", _onnx(_subgraph), r"has a graph of its own"),
    ArtefactLeak("a function that nothing calls", "onnx", _onnx(_function), r"the model has functions"),
    ArtefactLeak("a doc string of an output", "onnx", _onnx(_text_of_value), r"has a text beside what it does"),
    ArtefactLeak("metadata of a node", "onnx", _onnx(_metadata_of_node), r"has a text beside what it does"),
    ArtefactLeak("numbers as attributes", "onnx", _onnx(_scalars), r"20 numbers are spelled out that are not"),
    ArtefactLeak("numbers as axes", "onnx", _onnx(_integers), r"14 numbers are spelled out that are not"),
    ArtefactLeak("a comment of the archive", "torchscript", _comment, r"the archive has comments"),
    ArtefactLeak("padding between the files", "pt2", _padding, r"is padded with data|has comments"),
    ArtefactLeak("an unknown field at the end", "onnx", _tail, r"fields that ONNX does not know|does not account for"),
    ArtefactLeak("integers two steps off", "onnx-int8", _onnx(_step), r"int8 .* comes from no"),
    ArtefactLeak("a tensor more", "safetensors", _safetensors, r"spare, float32 .* comes from no"),
    ArtefactLeak("a second entry of metadata", "safetensors", _padded_header, r"entry of metadata 'note'"),
    ArtefactLeak(
        "a constant more", "torchscript", _zip("archive/constants/999"), r"constants/999, float32 .* comes from"
    ),
    ArtefactLeak("a file more", "torchscript", _zip("archive/notes.bin"), r"holds archive/notes\.bin"),
    ArtefactLeak("a weight more", "pt2", _zip("archive/data/weights/weight_999"), r"weight_999, float32 .* comes from"),
    ArtefactLeak("a compressed file", "pt2", _zip("archive/extra/n.json", compress=True), r"compresses archive/extra"),
)
