"""Sessions of onnxruntime, on the provider that was asked for or on none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"


def open_session(
    model: str | bytes, threads: int, provider: str | None, *, profile: str | None = None, optimise: bool = True
) -> onnxruntime.InferenceSession:
    """A session of a file or its bytes.

    Args:
        model: a path, or the file's bytes.
        threads: within an operator.
        provider: as `providers_of` takes it.
        profile: beginning of the name of a profile to write.
        optimise: False for the graph as it was written.

    Raises:
        ValueError: there is no such provider here.
        RuntimeError: onnxruntime puts another one in its place.
    """
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if not optimise:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.add_session_config_entry("session.disable_prepacking", "1")  # packed weights lose their shape
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile
    session = ort.InferenceSession(model, settings, providers=providers_of(provider))
    wanted = providers_of(provider)[0][0]
    if session.get_providers()[0] != wanted:
        raise RuntimeError(f"onnxruntime falls back to {session.get_providers()[0]}: {wanted} cannot be used here")
    return session


def providers_of(text: str | None) -> list[tuple[str, dict[str, str]]]:
    """The provider that is named, with or without ExecutionProvider, before that of the CPU, which takes the rest."""
    import onnxruntime as ort

    if text is None:
        return [(CPU, {})]
    short, _, given = text.partition(":")
    names = {name.lower(): name for name in ort.get_available_providers()}
    found = names.get(short.lower()) or names.get(f"{short.lower()}executionprovider")
    if found is None:
        raise ValueError(f"onnxruntime {ort.__version__} has no provider {short}; it has {', '.join(names.values())}")
    settings = dict(part.split("=", 1) for part in given.split(",") if part)
    return [(found, settings)] if found == CPU else [(found, settings), (CPU, {})]


def images_for(session: onnxruntime.InferenceSession, batch_size: int) -> dict[str, Any]:
    """Noise of the shape and the type that a session takes, by the name of its input.

    Raises:
        ValueError: another dimension than the first is free.
    """
    import numpy as np

    (entry,) = session.get_inputs()
    sides = _sides(session, entry.shape[1:])
    if any(not isinstance(size, int) for size in sides):
        raise ValueError(f"input {entry.name} has shape {entry.shape}: only the first dimension may be free")
    kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}[entry.type]
    return {entry.name: np.random.default_rng(0).standard_normal([batch_size, *sides]).astype(kind)}


def fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """The only batch size that runs; None for any."""
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else None


def _sides(session: onnxruntime.InferenceSession, given: list[Any]) -> list[Any]:
    """Of a file of ecd-deploy that brings images to size itself: pictures of twice the sides that it scales them to."""
    described = json.loads(session.get_modelmeta().custom_metadata_map.get("ecd_deploy", "{}"))
    if described.get("preprocessing") != "full":
        return given
    resize = described["resize"]
    height, width = resize if isinstance(resize, list) else (resize, resize)
    return [2 * height, 2 * width, described["input_shape"][0]]
