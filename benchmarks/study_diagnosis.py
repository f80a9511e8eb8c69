"""What the teacher does to the student in the runs of the reduced studies, before the first step and after the last.

Things that decide whether Explicit Connection Distillation can help: how strong the gradient of the teacher's loss is
in the student beside the gradient of the student's own loss, and whether the two agree; how much of a connected
feature comes from the student, and how large the teacher's own kernels are there; and whether the routers choose
between the kernels or average them. In training mode, on training images drawn by a seed, without augmentation.
Reads the studies' folders in `studies/`. Of a run that is not there what is committed stays; of one that is not
finished there is nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from benchmarks.figures import RESULTS, Figure, Report
from benchmarks.studies import STUDIES
from ecd_deploy.data import DataSplits, ImageTensors, eval_batches, load_data
from ecd_deploy.distill import ECDModel
from ecd_deploy.distill.convolution.dynamic_conv import DynamicConv2d
from ecd_deploy.pipelines.record.environment import describe_environment
from ecd_deploy.pipelines.record.names import ARM_NAME
from ecd_deploy.pipelines.steps.train import training_model
from ecd_deploy.pipelines.study.study import Study, load_study, recipe_of, run_directory
from ecd_deploy.training import load_weights

NAME = "study_diagnosis"
_BATCHES = 8
_BATCH_SIZE = 128


@dataclass
class _Seen:
    """What hooks saw: root mean squares at each site, and the mixing weights of each router."""

    transformed: dict[str, list[float]] = field(default_factory=dict)
    summed: dict[str, list[float]] = field(default_factory=dict)
    mixing: dict[str, list[Tensor]] = field(default_factory=dict)


def measure() -> Report:
    """Look at every ECD run of the studies, before and after training."""
    studies = [load_study(name) for name in STUDIES.values()]
    kept = _committed()
    rows = [row for study in studies for row in _rows(study, kept)]
    return Report(
        benchmark=NAME,
        figures=[
            figure
            for study in studies
            for arm in study.arms
            for figure in _figures(
                f"{study.name}, {arm.title}",
                [row for row in rows if (row["study"], row["arm"]) == (study.name, arm.name)],
            )
        ],
        setting={"images": _BATCHES * _BATCH_SIZE, "batch_size": _BATCH_SIZE},
        raw={"rows": rows},
    )


def _rows(study: Study, kept: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    out = Path("studies") / study.name
    for seed in study.seeds:
        data: DataSplits | None = None
        for arm in study.arms:
            recipe = recipe_of(study, arm, seed)
            if recipe.method.name != "ecd":
                continue
            if (run_directory(out, arm.name, seed) / ARM_NAME).is_file():
                data = data or load_data(recipe.data, seed=seed)
                yield from _run(study, arm.name, seed, data, out)
            else:
                yield from (row for row in kept if row["recipe_digest"] == recipe.digest())


def _committed() -> list[dict[str, Any]]:
    path = RESULTS / f"{NAME}.json"
    if not path.is_file():
        return []
    return list(json.loads(path.read_text(encoding="utf-8"))["raw"]["rows"])


def _figures(title: str, rows: list[dict[str, Any]]) -> list[Figure]:
    names = {
        "gradient_ratio": "norm of the teacher's gradient in the student over its own",
        "cosine": "cosine of the two",
        "student_share": "share of the student in a connected feature",
        "entropy": "entropy of a router over that of an equal mixture",
        "between_images": "of a router, what differs between images (mutual information over log n)",
        "kernel_scale": "root mean square of a mixed kernel over that of the student's, in connected layers",
    }
    return [
        Figure(
            name=f"{title}, {moment}: {meaning}",
            value=fmean(values),
            lower=min(values),
            upper=max(values),
            better="higher",
            unit="",
        )
        for moment in ("before", "after")
        for key, meaning in names.items()
        if (values := [row[key] for row in rows if row["moment"] == moment])
    ]


def _run(study: Study, arm: str, seed: int, data: DataSplits, out: Path) -> Iterator[dict[str, Any]]:
    root = run_directory(out, arm, seed)
    recipe = recipe_of(study, study.arm(arm), seed)
    model = training_model(recipe, data)
    about = {"study": study.name, "arm": arm, "seed": seed, "recipe_digest": recipe.digest()}
    about["environment"] = describe_environment().model_dump(mode="json")
    if not isinstance(model, ECDModel):
        raise TypeError(f"{arm} is no ECD")
    for moment in ("before", "after"):
        if moment == "after":
            load_weights(root, "last", model)
        yield {**about, "moment": moment, **_look(model, data)}


def _look(model: ECDModel, data: DataSplits) -> dict[str, Any]:
    """Gradients of both losses in the student, summed over batches, and what the hooks saw."""
    model.train()
    drawn = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: _BATCHES * _BATCH_SIZE]
    images = ImageTensors.of(data.train.select(drawn.numpy()))
    own: list[Tensor] = [torch.zeros_like(parameter) for parameter in model.student.parameters()]
    teachers = [torch.zeros_like(parameter) for parameter in own]
    names = [name for name, _ in model.student.named_parameters()]
    with _watching(model) as seen:
        for batch in eval_batches(images, data.normalisation, _BATCH_SIZE):
            outputs = model(batch.images)
            for logits, total in ((outputs.student, own), (outputs.teacher, teachers)):
                loss = F.cross_entropy(logits, batch.labels)
                found = torch.autograd.grad(
                    loss, list(model.student.parameters()), retain_graph=True, allow_unused=True
                )
                for parameter_sum, gradient in zip(total, found, strict=True):
                    if gradient is not None:
                        parameter_sum.add_(gradient)
    # What no connection reaches, the head for one, has no gradient of the teacher's: it is left out of both.
    reached = [index for index, gradient in enumerate(teachers) if gradient.any()]
    parts = sorted({names[index].split(".")[0] for index in reached})
    by_part = {part: _compare(own, teachers, [i for i in reached if names[i].split(".")[0] == part]) for part in parts}
    shares = {name: fmean(seen.transformed[name]) / fmean(seen.summed[name]) for name in seen.transformed}
    entropies = {name: _entropies(torch.cat(weights)) for name, weights in seen.mixing.items()}
    sizes = {name: _kernel_scale(model, name, torch.cat(weights)) for name, weights in seen.mixing.items()}
    connected = {site.name for site in model.connections.sites}
    ratio, cosine = _compare(own, teachers, reached)
    return {
        "gradient_ratio": ratio,
        "cosine": cosine,
        "student_share": fmean(list(shares.values())),
        "entropy": fmean([own_entropy for own_entropy, _ in entropies.values()]),
        "between_images": fmean([difference for _, difference in entropies.values()]),
        "kernel_scale": fmean([size for name, size in sizes.items() if name in connected]),
        "kernel_scale_by_layer": sizes,
        "gradient_ratio_and_cosine_by_part": by_part,
        "student_share_by_site": shares,
        "entropy_and_between_images_by_router": entropies,
    }


@contextmanager
def _watching(model: ECDModel) -> Iterator[_Seen]:
    seen = _Seen()

    def see_sum(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        seen.summed.setdefault(str(arguments[0]).replace(".", "/"), []).append(_rms(output))

    handles = [model.connections.register_forward_hook(see_sum)]
    for name, transform in model.connections.transforms.items():
        handles.append(
            transform.register_forward_hook(
                lambda _module, _arguments, output, name=name: seen.transformed.setdefault(name, []).append(
                    _rms(output)
                )
            )
        )
    for name, module in model.teacher.named_modules():
        if isinstance(module, DynamicConv2d):
            handles.append(
                module.register_forward_pre_hook(
                    lambda module, arguments, name=name: seen.mixing.setdefault(name, []).append(
                        module.mixing_weights(arguments[0]).detach()
                    )
                )
            )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _compare(own: list[Tensor], teachers: list[Tensor], indices: list[int]) -> tuple[float, float]:
    """Ratio of the norms, and cosine, of the gradients of these parameters."""
    first = torch.cat([own[index].flatten() for index in indices]).double()
    second = torch.cat([teachers[index].flatten() for index in indices]).double()
    return float(second.norm() / first.norm()), float(F.cosine_similarity(first, second, dim=0))


def _kernel_scale(model: ECDModel, name: str, mixing: Tensor) -> float:
    """Of the kernel as the routers mix it on average, beside the student's of the same layer."""
    theirs, own = model.teacher.get_submodule(name), model.student.get_submodule(name)
    if not isinstance(theirs, DynamicConv2d) or not isinstance(own, nn.Conv2d):
        raise TypeError(f"{name} is no convolution")
    return theirs.gain * _rms(mixing.mean(0) @ theirs.weight.flatten(1)) / _rms(own.weight)


def _entropies(mixing: Tensor) -> tuple[float, float]:
    """Mean entropy of the rows, and that of their mean less it, both over the largest possible."""
    largest = math.log(mixing.shape[1])
    mean = float(torch.special.entr(mixing).sum(1).mean()) / largest
    return mean, float(torch.special.entr(mixing.mean(0)).sum()) / largest - mean


def _rms(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt())
