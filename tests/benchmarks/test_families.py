"""A few families in every test run; `make zoo` does all of them."""

from __future__ import annotations

import json

import pytest

from benchmarks.families import FAMILIES, check_family
from benchmarks.figures import RESULTS


@pytest.mark.parametrize(
    "student", ["timm:lcnet_035", pytest.param("torchvision:shufflenet_v2_x0_5", marks=pytest.mark.slow)]
)
def test_a_family_goes_all_the_way(student: str) -> None:
    outcome = check_family(student)
    assert outcome.ok, outcome.reason
    assert outcome.passed == ("build", "merge", "forward", "backward", "split", "export", "parity")
    assert outcome.relative_difference is not None
    assert outcome.relative_difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "student",
    [
        "timm:test_byobnet",
        "timm:test_convnext",
        "timm:test_mambaout",
        "timm:ghostnet_050",
        "timm:regnetx_002",
        "torchvision:mobilenet_v3_small",
        "torchvision:squeezenet1_1",
    ],
)
def test_a_family_trains_and_splits(student: str) -> None:
    outcome = check_family(student, onnx=False)
    assert outcome.ok, outcome.reason
    assert outcome.replaced > 0
    assert outcome.connected > 0


@pytest.mark.needs("timm")
def test_a_family_that_cannot_be_treated_says_why() -> None:
    outcome = check_family("timm:test_nfnet")
    assert not outcome.ok
    assert outcome.passed == ("build",)
    assert outcome.reason.startswith("merge: StudentError: no convolution of the student can be replaced")


def test_the_committed_table_holds_every_family_and_at_least_thirty_of_timm_go_all_the_way() -> None:
    rows = json.loads((RESULTS / "zoo.json").read_text(encoding="utf-8"))["raw"]["rows"]
    assert [row["student"] for row in rows] == list(FAMILIES)
    assert sum(row["student"].startswith("timm:") and not row["reason"] for row in rows) >= 30
    # Two have convolutions that normalise their weights, as has NFNet; one keeps a tensor that torch cannot copy.
    assert {row["student"] for row in rows if row["reason"]} == {
        "timm:test_nfnet",
        "timm:nf_regnet_b0",
        "timm:resnetv2_50x1_bit",
        "timm:efficientformerv2_s0",
    }
