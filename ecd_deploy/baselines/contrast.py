"""CRD: Tian et al. (2020), <https://arxiv.org/abs/1910.10699>, with torchdistill's loss and negatives of our own."""

from __future__ import annotations

import torch
from torch import Tensor

from ecd_deploy.baselines.knowledge import Knowledge
from ecd_deploy.baselines.library_transfers import EMBEDDING_FEATURES, UnitEmbedding, library
from ecd_deploy.baselines.transfers import Transfer
from ecd_deploy.errors import StudentError

_TEMPERATURE, _MOMENTUM = 0.07, 0.5  # CRD's code


class Contrast(Transfer):
    """Each image's embedding by the student is told from those of other images by the teacher, and the reverse.

    The embeddings seen last are kept for every training image, and so in each checkpoint. With several processes
    the first one's are. torchdistill (1.1.5) cannot draw negatives itself, since its CRDLoss reads an attribute that
    it does not have; here they are drawn, with replacement, from the images of other classes.

    Args:
        student: of one image.
        teacher: likewise.
        labels: class indices (images,) of the training split.
        negatives: for each image.

    Raises:
        StudentError: all images are of one class.
        UsageError: torchdistill is not installed.
    """

    labels: Tensor
    order: Tensor
    starts: Tensor
    counts: Tensor

    def __init__(self, student: Knowledge, teacher: Knowledge, labels: Tensor, negatives: int) -> None:
        super().__init__()
        counts = torch.bincount(labels)
        if int(counts.max()) == len(labels):
            raise StudentError("method.pretrained.losses: 'crd' needs images of at least two classes")
        self._negatives = negatives
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer("order", labels.argsort(stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)
        self.student_embedding = UnitEmbedding(student.embedding.shape[1])
        self.teacher_embedding = UnitEmbedding(teacher.embedding.shape[1])
        self.loss = library().CRDLoss(
            student_norm_module_path="embedding",
            student_empty_module_path="indices",
            teacher_norm_module_path="embedding",
            input_size=EMBEDDING_FEATURES,
            output_size=len(labels),
            num_negative_samples=negatives,
            num_samples=len(labels),
            temperature=_TEMPERATURE,
            momentum=_MOMENTUM,
        )

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the loss of both directions, and remember the embeddings."""
        own, other = self.student_embedding(student.embedding), self.teacher_embedding(teacher.embedding)
        drawn = torch.cat([indices.unsqueeze(1), self.draw(indices)], dim=1)
        chosen = {"pos_idx": indices, "contrast_idx": drawn}
        value: Tensor = self.loss(
            {"embedding": {"output": own}, "indices": {"input": chosen}}, {"embedding": {"output": other}}
        )
        # at its first call the loss writes a result into this buffer, and would hold that step's graph for ever
        self.loss.params = self.loss.params.detach()
        return value.squeeze()

    def draw(self, indices: Tensor) -> Tensor:
        """Draw for each image (N,) others of other classes, evenly, (N, negatives)."""
        classes = self.labels[indices].unsqueeze(1)
        others = len(self.order) - self.counts[classes]
        draws = (torch.rand(len(indices), self._negatives, device=indices.device) * others).long()
        draws = torch.minimum(draws, others - 1)
        # sorted by class, an image's own class is one gap
        return self.order[draws + (draws >= self.starts[classes]) * self.counts[classes]]
