from __future__ import annotations

import numpy as np
import pytest

from ecd_deploy.measure.scores.parity import compare_logits


def test_difference_and_agreement() -> None:
    expected = np.array([[1.0, 2.0], [3.0, 1.0]], dtype=np.float32)
    found = np.array([[2.5, 2.0], [3.0, 0.75]], dtype=np.float32)
    parity = compare_logits(expected, found)
    assert parity.max_abs_diff == pytest.approx(1.5)
    assert parity.argmax_agreement == 0.5
    assert parity.problem() is None


def test_wrong_shape_is_never_broadcast() -> None:
    parity = compare_logits(np.zeros((4, 3), np.float32), np.zeros((4, 1), np.float32))
    assert not parity.comparable
    assert parity.problem() == "logits have shape [4, 1], expected [4, 3]"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_first_image_that_is_not_finite_is_named(value: float) -> None:
    found = np.zeros((5, 2), np.float32)
    found[3, 1] = found[4, 0] = value
    parity = compare_logits(np.zeros((5, 2), np.float32), found)
    assert not parity.comparable
    assert parity.first_bad_image == 3
    assert "image 3" in str(parity.problem())
