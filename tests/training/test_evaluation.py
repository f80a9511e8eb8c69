from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator

from ecd_deploy.data import DataSplits, ImageTensors, normalise
from ecd_deploy.distill import TrainingModel
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training import HeadTop1, train
from ecd_deploy.training.evaluation import evaluate, evaluating
from tests.small import present


def test_counts_equal_a_plain_evaluation(make_model: Callable[[], TrainingModel], data: DataSplits) -> None:
    model = make_model()
    test = ImageTensors.of(data.test)
    found = evaluate(model, test, data.normalisation, Accelerator(), 64)
    model.eval()
    with torch.no_grad():
        outputs = model(normalise(test.images, data.normalisation))
    student, teacher = (
        (logits.argmax(1) == test.labels).double().mean().item() for logits in (outputs.student, outputs.teacher)
    )
    assert found.top1 == HeadTop1(student=student, teacher=teacher)
    predicted = outputs.student.argmax(1)
    for number, recall in enumerate(found.recalls):
        of_class = test.labels == number
        assert recall == (predicted[of_class] == number).double().mean().item()
    assert found.balanced == pytest.approx(sum(map(present, found.recalls)) / 10)


def test_a_class_without_images_has_no_recall(make_model: Callable[[], TrainingModel], data: DataSplits) -> None:
    few = data.test.select(np.flatnonzero(np.isin(data.test.labels, (2, 5))))
    model = make_model()
    with torch.no_grad():
        model.get_parameter("student.5.bias")[5] = 1e6
    found = evaluate(model, ImageTensors.of(few), data.normalisation, Accelerator(), 64)
    assert found.recalls == (None, None, 0.0, None, None, 1.0, None, None, None, None)
    assert found.balanced == 0.5


def test_each_modules_mode_is_given_back_and_nothing_is_changed(
    make_model: Callable[[], TrainingModel], data: DataSplits
) -> None:
    model = make_model().train()
    model.student.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, ImageTensors.of(present(data.validation)), data.normalisation, Accelerator(), 64)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_mode_is_given_back_after_an_error(make_model: Callable[[], TrainingModel]) -> None:
    model = make_model().train()
    try:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert all(module.training for module in model.modules())


def test_the_teacher_is_not_evaluated_unless_asked_for(
    make_model: Callable[[], TrainingModel], make_recipe: Callable[..., Recipe], data: DataSplits, tmp_path: Path
) -> None:
    results = {}
    for wanted in ("true", "false"):
        recipe = make_recipe("train.epochs=1", f"train.teacher_accuracy={wanted}")
        results[wanted] = train(make_model(), data, recipe, tmp_path / wanted, resume=False).last
    assert results["true"].teacher_validation_top1 is not None
    assert results["false"].teacher_validation_top1 is None
    assert results["false"].validation_top1 == results["true"].validation_top1
