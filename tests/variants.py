"""Every variant of the method that is trained in one stage, as a recipe's `[method]`."""

from __future__ import annotations

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"name": "plain"},
    "ecd": {"name": "ecd"},
    "ecd*": {"name": "ecd", "logits": "ensemble"},
    "direct": {"name": "ecd", "connection": "direct"},
    "conv1x1_bn": {"name": "ecd", "connection": "conv1x1_bn"},
    "dense": {"name": "ecd", "density": "dense"},
    "dense conv1x1_bn": {"name": "ecd", "density": "dense", "connection": "conv1x1_bn"},
    "balanced": {"name": "ecd", "mixture": "balanced"},
    "started": {"name": "ecd", "teacher_init": "student"},
    "started dense": {"name": "ecd", "teacher_init": "student", "density": "dense"},
    "chunked": {"name": "ecd", "backend": "chunked"},
    "triton": {"name": "ecd", "backend": "triton"},
    "se": {"name": "ecd", "teacher": "se"},
    "cbam": {"name": "ecd", "teacher": "cbam"},
    "ecd and mutual": {"name": "ecd", "logits": "mutual"},
    "ecd and kd": {"name": "ecd", "logits": "teacher"},
    "stage features": {"name": "ecd", "features": "stage"},
    "block features": {"name": "ecd", "features": "block"},
    "joint": {"name": "joint"},
    "dml": {"name": "joint", "logits": "mutual"},
    "ed": {"name": "joint", "logits": "ensemble"},
    "one": {"name": "one"},
}
