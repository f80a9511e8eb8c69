"""Numbers of the teacher put into a student in another form: as buffers, literals, state or hooks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.model_leaks import ModelLeak, change_logits
from ecd_deploy.distill import DynamicConv2d, ECDModel


def _rows(joint: ECDModel) -> Tensor:
    """The first kernel of a dynamic convolution, (16, 144)."""
    weights = (child.weight for child in joint.teacher.modules() if isinstance(child, DynamicConv2d))
    return next(w for w in weights if w.shape[2] > 1).detach()[0].flatten(1).clone()


def _beside_student(weight: Tensor) -> Tensor:
    return torch.stack([weight.flatten(), torch.randn(weight.numel())], dim=1)


_ENCODINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "as float64": lambda w: w.double(),
    "as float16": lambda w: w.half(),
    "as bfloat16": lambda w: w.bfloat16(),
    "as integers of 32 bits": lambda w: w.view(torch.int32),
    "as bytes": lambda w: w.view(torch.uint8),
    "as complex numbers": lambda w: torch.view_as_complex(w.reshape(-1, 2)),
    "as imaginary parts": lambda w: torch.complex(torch.zeros_like(w), w),
    "a column": lambda w: w[:, 5],
    "a part of a row": lambda w: w[3, 10:20],
    "a part of each row, transposed": lambda w: w[:, 2:9].t(),
    "within other numbers": lambda w: torch.cat([torch.randn(33), w.flatten()[7:90], torch.randn(5)]),
    "transposed": lambda w: w.t(),
    "negated": lambda w: -w,
    "with every other sign flipped": lambda w: w * torch.tensor([1.0, -1.0]).repeat(w.shape[1] // 2),
    "a part, in reverse": lambda w: w.flatten()[7:90].flip(0),
}
# Nothing of the teacher's stands in a row in these: only a fresh build, or that nothing reads them, tells.
_DISGUISED: dict[str, Callable[[Tensor], Tensor]] = {
    "times two": lambda w: 2 * w,
    "sorted, in part": lambda w: w.flatten()[7:90].sort().values,
    "between other numbers": _beside_student,
}


def _as_buffer(encode: Callable[[Tensor], Tensor], name: str, joint: ECDModel, _images: Tensor) -> None:
    joint.student.register_buffer(name, encode(_rows(joint)).clone())


def _in_pieces(joint: ECDModel, _images: Tensor) -> None:
    for number, piece in enumerate(_rows(joint).flatten()[:70].reshape(10, 7)):
        joint.student.register_buffer(f"piece{number}", piece.clone())


def _into_weight(encode: Callable[[Tensor], Tensor], joint: ECDModel, _images: Tensor) -> None:
    weight = next(p for p in joint.student.parameters() if p.dim() == 4 and p.shape[1] > 1)
    stolen = encode(_rows(joint)).flatten()[:32]
    with torch.no_grad():
        weight.view(-1)[11 : 11 + len(stolen)] = stolen


def _in_a_column(joint: ECDModel, _images: Tensor) -> None:
    classifier = next(module for module in joint.student.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        classifier.weight[:, 3] = _rows(joint)[0, : len(classifier.weight)]


def _spelled(change: Callable[[list[float], Tensor], Tensor], joint: ECDModel, _images: Tensor) -> None:
    change_logits(joint, partial(change, _rows(joint).flatten()[:100].tolist()))


def _one_at_a_time(numbers: list[float], logits: Tensor) -> Tensor:
    for number in numbers:
        logits = logits + number
    return logits


def _in_fours(numbers: list[float], logits: Tensor) -> Tensor:
    return logits + torch.cat([torch.tensor(numbers[i : i + 4]) for i in range(0, 40, 4)])[:10]


def _in_digits(numbers: list[float], logits: Tensor) -> Tensor:
    for number in numbers:
        for digit in f"{abs(number):.6f}"[2:]:
            logits = logits + 0.001 * int(digit)
    return logits


def _only_for_onnx(numbers: list[float], logits: Tensor) -> Tensor:
    return _one_at_a_time(numbers, logits) if torch.onnx.is_in_onnx_export() else logits


def _state_hook(joint: ECDModel, _images: Tensor) -> None:
    stolen = _rows(joint)

    def add(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
        state[prefix + "statistics"] = stolen

    joint.student.register_state_dict_post_hook(add)  # type: ignore[no-untyped-call]


def _extra_state(joint: ECDModel, _images: Tensor) -> None:
    stolen = _rows(joint)
    kind = type(joint.student)
    namespace = {"get_extra_state": lambda _: stolen, "set_extra_state": lambda *_: None}
    joint.student.__class__ = type(kind.__name__, (kind,), namespace)


ENCODED_LEAKS = (
    *(
        ModelLeak(f"a weight in a buffer, {form}", partial(_as_buffer, encode, "moving_mean"), "values")
        for form, encode in _ENCODINGS.items()
    ),
    *(
        ModelLeak(f"a weight in a buffer, {form}", partial(_as_buffer, encode, "moving_mean"), "graph")
        for form, encode in _DISGUISED.items()
    ),
    ModelLeak("a weight in buffers of seven numbers", _in_pieces, "values"),
    ModelLeak("a part of a weight in a trained one", partial(_into_weight, lambda w: w), "values"),
    ModelLeak("a part of a weight in a trained one, negated", partial(_into_weight, lambda w: -w), "values"),
    ModelLeak("a column of a weight in a trained one", partial(_into_weight, lambda w: w.t().contiguous()), "values"),
    ModelLeak("a part of a weight in a trained one, in reverse", partial(_into_weight, lambda w: w.flip(1)), "values"),
    ModelLeak("a row of a weight in a trained column", _in_a_column, "values"),
    ModelLeak("a hundred numbers, one at a time", partial(_spelled, _one_at_a_time), "graph"),
    ModelLeak("forty numbers, in fours", partial(_spelled, _in_fours), "graph"),
    ModelLeak("a hundred numbers, digit by digit", partial(_spelled, _in_digits), "graph"),
    ModelLeak("a hundred numbers, for ONNX only", partial(_spelled, _only_for_onnx), "construction"),
    ModelLeak("a hook on the state", _state_hook, "hooks"),
    ModelLeak("extra state", _extra_state, "hooks"),
)
