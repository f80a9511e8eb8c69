"""The training step: ECD against the hand-written reference, mutual learning and the student alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from benchmarks.figures import Figure, Report
from benchmarks.reference import ReferenceECD, reference_loss, reference_optimizer
from benchmarks.runner import Candidate, Timings, Work, interleave
from ecd_deploy.distill import ECDModel, TeacherOptions, training_loss
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.steps.allocator import keep_freed_memory
from ecd_deploy.training.steps.average import WeightAverage
from ecd_deploy.training.steps.optimizer import build_optimizer

STUDENT, CLASSES, SIDE, BATCH, KERNELS = "resnet20", 100, 32, 128, 16
CLIP_NORM, EMA_DECAY = 1.0, 0.999
ROUNDS, STEPS = 12, 3
MIB = 2**20
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def measure() -> Report:
    """Time and memory of one step of each candidate, in turns."""
    here = __name__
    timings = interleave(
        (
            Candidate(name="reference", factory=f"{here}:reference_step"),
            Candidate(name="reference_allocator", factory=f"{here}:reference_step", arguments={"tuned": True}),
            Candidate(name="ecd", factory=f"{here}:engine_step", arguments={"method": "ecd"}),
            Candidate(
                name="ecd_steadied", factory=f"{here}:engine_step", arguments={"method": "ecd", "steadied": True}
            ),
            Candidate(name="mutual", factory=f"{here}:mutual_step"),
            Candidate(name="mutual_in_turn", factory=f"{here}:mutual_step_in_turn"),
            Candidate(name="student", factory=f"{here}:engine_step", arguments={"method": "plain"}),
            Candidate(
                name="student_steadied", factory=f"{here}:engine_step", arguments={"method": "plain", "steadied": True}
            ),
            Candidate(
                name="student_contiguous",
                factory=f"{here}:engine_step",
                arguments={"method": "plain", "layout": "contiguous"},
            ),
        ),
        rounds=ROUNDS,
        repeats=STEPS,
        budget_seconds=300,
    )
    return Report(
        benchmark="training_step",
        figures=_figures(timings),
        setting={
            "student": STUDENT,
            "side": SIDE,
            "batch": BATCH,
            "kernels": KERNELS,
            "rounds": len(timings.seconds["ecd"]),
            "steps_in_a_timing": STEPS,
        },
        raw={
            "seconds": timings.seconds,
            "cpu_seconds": timings.cpu_seconds,
            "peak_mib": {key: val / MIB for key, val in timings.peak_bytes.items()},
        },
    )


def reference_step(tuned: bool = False) -> Work:
    """The hand-written step, with the process as it is or with our setting of the allocator."""
    if tuned:
        keep_freed_memory()
    torch.manual_seed(0)
    model = ReferenceECD(num_classes=CLASSES, kernels=KERNELS).train()
    optimizer = reference_optimizer(model)
    images, labels = _batch()

    def step() -> None:
        optimizer.zero_grad()
        loss = reference_loss(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def engine_step(method: str, layout: str = "channels_last", steadied: bool = False) -> Work:
    """A step as the training loop does it, of ECD or of the student alone, or with clipping and EMA besides."""
    keep_freed_memory()
    torch.manual_seed(0)
    student = build_student(STUDENT, num_classes=CLASSES)
    config = MethodConfig.model_validate({"name": method, "kernels": KERNELS})
    model = build_training_model(config, student, example=torch.zeros(1, 3, SIDE, SIDE)).train()
    model.layout = LAYOUTS[layout]
    optimizer = build_optimizer(model, TrainConfig())
    average = WeightAverage(model, EMA_DECAY) if steadied else None
    images, labels = _batch()

    def step() -> None:
        optimizer.zero_grad()
        loss = training_loss(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if average is not None:
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        if average is not None:
            average.begin_step(0)
            average.update()

    return step


def mutual_step() -> Work:
    """Deep mutual learning, Zhang et al. (2018), <https://arxiv.org/abs/1706.00384>, of our student and teacher."""
    student, teacher, images, labels = _peers()
    optimizer = build_optimizer(nn.ModuleList([student, teacher]), TrainConfig())
    laid_out = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad()
        of_student, of_teacher = student(laid_out), teacher(images)
        loss = _peer_loss(of_student, of_teacher, labels) + _peer_loss(of_teacher, of_student, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def mutual_step_in_turn() -> Work:
    """The same as its algorithm 1 has it: the student is updated first, and the teacher learns from its new logits."""
    student, teacher, images, labels = _peers()
    of_student_only, of_teacher_only = (build_optimizer(model, TrainConfig()) for model in (student, teacher))
    laid_out = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        of_student_only.zero_grad()
        of_teacher_only.zero_grad()
        of_teacher = teacher(images)
        _peer_loss(student(laid_out), of_teacher, labels).backward()  # type: ignore[no-untyped-call]
        of_student_only.step()
        with torch.no_grad():
            of_student = student(laid_out)
        _peer_loss(of_teacher, of_student, labels).backward()  # type: ignore[no-untyped-call]
        of_teacher_only.step()

    return step


def _peers() -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    keep_freed_memory()
    torch.manual_seed(0)
    student = build_student(STUDENT, num_classes=CLASSES)
    joint = ECDModel(student, TeacherOptions(kernels=KERNELS), example=torch.zeros(1, 3, SIDE, SIDE))
    return joint.student.train(), joint.teacher.train(), *_batch()


def _peer_loss(own: Tensor, other: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, and the divergence from the other's prediction, which is held fixed."""
    own_log = F.log_softmax(own, dim=1)
    other_log = F.log_softmax(other.detach(), dim=1)
    divergence = F.kl_div(own_log, other_log, reduction="batchmean", log_target=True)
    return F.nll_loss(own_log, labels) + divergence


def _batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, 3, SIDE, SIDE, generator=draw), torch.randint(CLASSES, (BATCH,), generator=draw)


def _figures(timings: Timings) -> list[Figure]:
    peak = timings.peak_bytes

    def row(name: str, numerator: str, denominator: str, must: float, aim: float) -> Figure:
        return Figure.over(name, timings.ratios(numerator, denominator), better="lower", must=must, aim=aim)

    def info(name: str, numerator: str, denominator: str, *, cpu: bool = False) -> Figure:
        return Figure.over(name, timings.ratios(numerator, denominator, cpu=cpu), better="lower")

    faster = timings.ratios("reference", "ecd")
    return [
        Figure.over(
            "ECD step: times faster than the hand-written reference", faster, better="higher", must=1.3, aim=1.6
        ),
        row("ECD step over mutual learning's", "ecd", "mutual", 1.05, 0.976),
        info("ECD step over mutual learning's, one network updated after the other", "ecd", "mutual_in_turn"),
        row("ECD step over the student's alone", "ecd", "student", 2.6, 2.2),
        row("ECD step with clipping and EMA over one without", "ecd_steadied", "ecd", 1.03, 1.01),
        row("student's step with clipping and EMA over one without", "student_steadied", "student", 1.03, 1.01),
        Figure(
            name="peak memory over the reference's",
            value=peak["ecd"] / peak["reference"],
            better="lower",
            must=1.0,
            aim=0.8,
        ),
        info("reference with the same allocator setting over the ECD step", "reference_allocator", "ecd"),
        info("ECD step over the student's alone in the default memory layout", "ecd", "student_contiguous"),
        info("processor time: reference over ECD", "reference", "ecd", cpu=True),
        info("processor time: ECD over mutual learning", "ecd", "mutual", cpu=True),
        info("processor time: ECD over the student alone", "ecd", "student", cpu=True),
        info("processor time: ECD with clipping and EMA over ECD without", "ecd_steadied", "ecd", cpu=True),
        info("processor time: student with clipping and EMA over without", "student_steadied", "student", cpu=True),
    ]
