"""The learnable ensemble of the two heads, for ECD* and ensemble distillation (paper, section 4; table 8).

After ONE, <https://arxiv.org/abs/1806.04606>. The paper says that a learnable ensemble is applied to the
logits of student and teacher, and no more. ONE weighs its branches by a gate on features that they
share; student and teacher share none. Our choice: one weight a head, a softmax of two learned numbers
that start equal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HeadEnsemble(nn.Module):
    """A convex combination of the heads' logits with learned weights.

    Attributes:
        scores: (heads,); their softmax are the weights.
    """

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(heads))

    def forward(self, heads: tuple[Tensor, ...]) -> Tensor:
        """Combine logits (N, classes) of each head into one such tensor."""
        weights = torch.softmax(self.scores, dim=0)
        return torch.einsum("h,hnc->nc", weights, torch.stack(heads))
