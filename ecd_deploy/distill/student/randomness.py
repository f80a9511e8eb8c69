"""Random masks (dropout, stochastic depth) of student and teacher must be drawn independently.

Both draw from torch's generator, the student first, so masks differ as long as neither resets it. Shared
masks would tie the teacher's noise to the student's, which no loss shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.errors import StudentError, reraise_machine_fault

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_masks(copied: nn.Module, images: Tensor) -> None:
    """Run a copy of the student in training mode and refuse it if its forward seeds torch's generator.

    Args:
        copied: may be changed; the caller's random state is not.
        images: (N, C, H, W), N at least 2 because of batch norm.

    Raises:
        StudentError: the masks of student and teacher would be the same, or training mode gives no logits.
    """
    cuda = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.no_grad():
        torch.manual_seed(1)
        untouched = _state(images.device)
        first = _state_after(copied.train(), images, seed=1)
        seeds_itself = not torch.equal(first, untouched) and torch.equal(first, _state_after(copied, images, seed=2))
    if seeds_itself:
        raise StudentError(
            "the student seeds torch's random numbers in its forward: its teacher would draw the same masks "
            "(dropout, stochastic depth); let it draw from the generator as it stands"
        )


def separate_generators(teacher: nn.Module) -> None:
    """Seed anew the generators that modules of a copied teacher hold: a copy continues its original's numbers."""
    for generator in _generators(teacher):
        generator.manual_seed(int(torch.randint(2**31, ())))


def _state_after(copied: nn.Module, images: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    try:
        logits = copied(images)
    except Exception as error:
        reraise_machine_fault(error)
        raise StudentError(
            f"the student cannot be run in training mode on images of shape {tuple(images.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(logits, Tensor):
        raise StudentError(f"in training mode the student returns {type(logits).__name__}, it must return logits")
    return _state(images.device)


def _state(device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.cat((torch.get_rng_state(), torch.cuda.get_rng_state(device)))
    return torch.get_rng_state()


def _generators(module: nn.Module) -> Iterator[torch.Generator]:
    found = (value for part in module.modules() for value in vars(part).values())
    return (value for value in found if isinstance(value, torch.Generator))
