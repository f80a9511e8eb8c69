"""A split student as bytes, so that a later command can take it up again."""

from __future__ import annotations

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ecd_deploy.errors import ArtefactError, SplitError
from ecd_deploy.split.results import SplitProof
from ecd_deploy.split.student import SplitStudent


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state of a plain module by name, each tensor in memory of its own.

    Raises:
        SplitError: the module keeps something else than tensors in its state.
    """
    state: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise SplitError(f"the student's state holds {name}, a {type(value).__name__}: only tensors can be kept")
        state[name] = value.detach().cpu().clone().contiguous()
    return state


def student_bytes(student: SplitStudent) -> bytes:
    """Return the student's tensors as safetensors; with the proof they are the whole student.

    Raises:
        SplitError: the student's state holds something else than tensors.
    """
    return safetensors.torch.save(plain_state(student.module))


def load_student(data: bytes, module: nn.Module, proof: SplitProof) -> SplitStudent:
    """Fill a freshly built plain student and check it against its proof.

    Args:
        data: of `student_bytes`.
        module: of the same architecture; it is filled, set to eval mode, and belongs to the result.
        proof: of the split.

    Raises:
        ArtefactError: the bytes are no safetensors, or belong to another architecture.
        DigestError: a tensor is not the one that was proved.
        SplitError: the proof did not pass.
    """
    try:
        module.load_state_dict(safetensors.torch.load(data), strict=True)
    except SafetensorError as error:
        raise ArtefactError(f"the split student is no safetensors file: {error}") from error
    except RuntimeError as error:
        raise ArtefactError(f"the split student does not fit {type(module).__name__}: {error}") from error
    return SplitStudent(module.eval().requires_grad_(False), proof)
