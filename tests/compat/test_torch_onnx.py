from __future__ import annotations

from torch.onnx._internal.exporter._registration import ONNXRegistry

from ecd_deploy.compat.torch_onnx import registry_kept


def test_exports_share_one_table_of_operators_and_torch_is_left_as_it_was() -> None:
    before = vars(ONNXRegistry)["from_torchlib"]
    with registry_kept():
        first = ONNXRegistry().from_torchlib(opset_version=20)
    assert vars(ONNXRegistry)["from_torchlib"] is before
    with registry_kept():
        assert ONNXRegistry().from_torchlib(opset_version=20) is first
    assert len(first.functions) > 100
    assert first.opset_version == 20
