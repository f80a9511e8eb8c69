from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ecd_deploy.errors import ExportError, SplitError
from ecd_deploy.exporters import ArtefactMetadata, refuse_local_paths
from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.onnx.fp32 import OnnxExporter
from ecd_deploy.exporters.onnx.graph import check_embedded, check_interface, check_opset, strip_provenance
from ecd_deploy.split import SplitStudent
from tests.exporters.conftest import Exported, fresh_student, make_metadata
from tests.small import digit_images

RUN_ALONE = """
import sys
import numpy
import onnxruntime
session = onnxruntime.InferenceSession("student.onnx", providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], {"images": numpy.load("images.npy")})
numpy.save("logits.npy", logits)
assert "torch" not in sys.modules and "ecd_deploy" not in sys.modules
"""


@pytest.fixture
def model(artefacts: dict[str, Exported]) -> onnx.ModelProto:
    return onnx.load_model_from_string(artefacts["onnx"].data)


def test_the_graph_is_what_devices_expect(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    assert images.type.tensor_type.shape.dim[0].dim_param == logits.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert [entry.key for entry in model.metadata_props] == ["ecd_deploy"]
    assert not [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_graph_that_is_audited_gives_the_bytes_that_torch_onnx_makes_of_the_module(
    artefacts: dict[str, Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = artefacts["onnx"]
    assert exported.student.program is exported.student.program
    monkeypatch.setattr(SplitStudent, "program", property(_cannot_be_had))
    assert OnnxExporter().export(ExportInput(exported.student, make_metadata())) == exported.data


def _cannot_be_had(_student: SplitStudent) -> None:
    raise SplitError("torch.export cannot express it for any number of images")


def test_numpy_and_onnxruntime_are_enough(artefacts: dict[str, Exported], tmp_path: Path) -> None:
    exported, images = artefacts["onnx"], digit_images(64)
    (tmp_path / "student.onnx").write_bytes(exported.data)
    np.save(tmp_path / "images.npy", images.numpy())
    subprocess.run([sys.executable, "-I", "-c", RUN_ALONE], cwd=tmp_path, check=True)
    expected = exported.student.module(images).numpy()
    assert np.array_equal(np.load(tmp_path / "logits.npy").argmax(axis=1), expected.argmax(axis=1))


def test_another_opset_than_was_asked_for_is_refused(model: onnx.ModelProto) -> None:
    check_opset(model, 20)
    with pytest.raises(ExportError, match=r"opset 18 was asked for, written was ai\.onnx 20"):
        check_opset(model, 18)
    model.opset_import.append(helper.make_opsetid("com.vendor", 1))
    with pytest.raises(ExportError, match=r"written was ai\.onnx 20, com\.vendor 1"):
        check_opset(model, 20)


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def other_batch(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"


def other_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "x"


def second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["batch", 64]))


def other_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def other_classes(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fixed_batch, "input 'images' has a fixed batch size, 2"),
        (other_batch, "output has another batch size than its input"),
        (other_name, r"inputs are \['x'\], expected \['images'\]"),
        (second_output, r"outputs are \['logits', 'features'\]"),
        (other_type, "input 'images' is not float32"),
        (other_classes, r"output 'logits' has sizes \(9,\), expected \(10,\)"),
    ],
)
def test_another_interface_is_refused(
    model: onnx.ModelProto, metadata: ArtefactMetadata, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    check_interface(model, metadata)
    change(model)
    with pytest.raises(ExportError, match=message):
        check_interface(model, metadata)


def test_external_data_are_refused_before_they_are_read(artefacts: dict[str, Exported], model: onnx.ModelProto) -> None:
    check_embedded(model)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../elsewhere")
    with pytest.raises(ExportError, match=f"keeps {tensor.name} in another file"):
        artefacts["onnx"].exporter.open(model.SerializeToString(), fresh_student)


def test_provenance_is_stripped_also_from_subgraphs() -> None:
    constant = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    constant.doc_string = "in /home/someone"
    inner = helper.make_node("Identity", ["zero"], ["inside"], doc_string="in /home/someone")
    inner.metadata_props.add(key="stack_trace", value='File "/home/someone/student.py"')
    output = helper.make_tensor_value_info("inside", onnx.TensorProto.FLOAT, [1], doc_string="in /home/someone")
    branch = helper.make_graph([inner], "branch", [], [output], [constant], doc_string="in /home/someone")
    choice = helper.make_node("If", ["condition"], ["outside"], then_branch=branch, else_branch=branch)
    condition = helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, [])
    outside = helper.make_tensor_value_info("outside", onnx.TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([choice], "graph", [condition], [outside]), doc_string="/home/someone")
    with pytest.raises(ExportError, match="holds a local path"):
        refuse_local_paths(model.SerializeToString(), "onnx")

    strip_provenance(model)

    refuse_local_paths(model.SerializeToString(), "onnx")
    onnx.checker.check_model(model, full_check=True)
    assert b"someone" not in model.SerializeToString()
