from __future__ import annotations

import numpy as np
import pytest
import torch

from ecd_deploy.measure.predictors.prediction import Predictions, predict
from ecd_deploy.measure.predictors.torch_predictor import reference_predictor, torch_predictor
from ecd_deploy.measure.scores.accuracy import Top1, paired_top1, top1


def predictions(chosen: list[int], labels: list[int]) -> Predictions:
    return Predictions(np.eye(3, dtype=np.float32)[chosen], np.array(labels))


def test_paired_counts_by_image() -> None:
    reference = predictions([0, 1, 2, 0], [0, 1, 2, 2])
    candidate = predictions([0, 2, 2, 2], [0, 1, 2, 2])
    paired = paired_top1(reference, candidate)
    assert (paired.lost, paired.gained) == (1, 1)
    assert paired.reference == paired.candidate == Top1(correct=3, images=4)
    assert paired.drop == 0.0


def test_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        paired_top1(predictions([0], [0]), predictions([0], [1]))


def test_a_row_with_nan_is_never_correct() -> None:
    logits = np.array([[np.nan, 0.0], [1.0, 0.0]], dtype=np.float32)
    assert top1(Predictions(logits, np.array([0, 0]))).correct == 1


def test_accuracy_of_no_images_is_not_a_number() -> None:
    assert np.isnan(Top1(correct=0, images=0).accuracy)


def test_torch_predictor_evaluates_and_keeps_the_order() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten()).train()
    images = torch.arange(8.0).reshape(4, 1, 1, 2)
    batches = [(images[:3].numpy(), np.array([0, 1, 0])), (images[3:].numpy(), np.array([1]))]
    result = predict(torch_predictor(module), batches)
    assert not module.training
    assert module[0].num_batches_tracked == 0
    np.testing.assert_allclose(result.logits, images.flatten(1).numpy(), rtol=1e-4)
    assert result.labels.tolist() == [0, 1, 0, 1]


class _Shuffled(torch.nn.Module):
    """Reads its features as they lie in memory, which is another order in channels_last."""

    def __init__(self, *, raises: bool) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.raises = raises
        self.layouts: list[bool] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.layouts.append(images.is_contiguous(memory_format=torch.channels_last))
        features = self.conv(images)
        size = (len(images), features[0].numel())
        read: torch.Tensor = features.view(size) if self.raises else features.as_strided(size, (size[1], 1))
        return read


@pytest.mark.parametrize("raises", [True, False])
def test_the_reference_keeps_the_layout_of_a_module_that_reads_memory_as_it_lies(raises: bool) -> None:
    module = _Shuffled(raises=raises)
    images = torch.randn(4, 3, 6, 6).numpy()
    predictor = reference_predictor(module, images)
    module.layouts.clear()
    np.testing.assert_array_equal(predictor(images), torch_predictor(module)(images))
    assert module.layouts == [False, False]


def test_the_reference_runs_a_copy_in_channels_last_with_the_same_logits() -> None:
    convolution = torch.nn.Conv2d(3, 8, 3)
    module = torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(8), torch.nn.Flatten()).train()
    images = torch.randn(4, 3, 6, 6).numpy()
    weight = convolution.weight
    predictor = reference_predictor(module, images)
    np.testing.assert_allclose(predictor(images), torch_predictor(module)(images), atol=1e-5)
    assert convolution.weight is weight
    assert weight.is_contiguous()
    assert not weight.is_contiguous(memory_format=torch.channels_last)
