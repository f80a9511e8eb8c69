"""`python -m benchmarks.wire`: what several GPUs exchange in a step of ECD, by counted parameters and products.

Prints the tables of docs/scaling.md. Nothing is timed: bandwidths and arithmetic rates are those that are named.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ecd_deploy.distill.cost import count_macs, measure_training_memory
from ecd_deploy.distill.model import JointModel
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.training.methods import build_training_model

LINKS = {
    "8 GPUs, 200 GB/s (NVLink)": (8, 200e9),
    "8 GPUs, 20 GB/s (PCIe)": (8, 20e9),
    "16 GPUs, 12.5 GB/s": (16, 12.5e9),
}
"""GPUs, and bytes a second that one link of their ring really carries."""

RATE = 30e12  # operations a second that a GPU really does
IMAGES, EPOCHS, BATCH = 1_281_167, 90, 32  # of ImageNet; a GPU's share of a batch
GPUS = (1, 8, 16)
BACKENDS = ("grouped", "chunked")


@dataclass(frozen=True)
class Network:
    """A student, the side of its images, and kernels and classes."""

    student: str
    side: int
    kernels: int
    classes: int


NETWORKS = (
    Network("resnet20", 32, 16, 100),
    Network("resnet56", 32, 16, 100),
    Network("wrn-40-2", 32, 16, 100),
    Network("torchvision:resnet18", 224, 8, 1000),
)
IMAGENET = NETWORKS[-1]


def build(network: Network, backend: str = "grouped") -> JointModel:
    """Build ECD of a network."""
    method = MethodConfig.model_validate({"kernels": network.kernels, "backend": backend})
    student = build_student(network.student, num_classes=network.classes)
    model = build_training_model(method, student, example=torch.zeros(2, 3, network.side, network.side))
    assert isinstance(model, JointModel)  # noqa: S101 (for the type checker: that is what ECD is)
    return model


def ring_seconds(size: int, gpus: int, bandwidth: float) -> float:
    """Time in which a ring adds up what each GPU has."""
    return 2 * (gpus - 1) / gpus * size / bandwidth


def step_seconds(model: JointModel, network: Network, images: int) -> float:
    """Time of a step's arithmetic at `RATE`: two operations a multiplication, and backward twice what is forward."""
    image = torch.zeros(1, 3, network.side, network.side)
    macs = sum(sum(count_macs(part, image).values()) for part in (model.student, model.teacher))
    return 3 * 2 * macs * images / RATE


def main() -> None:
    """Print the tables."""
    print("| student, n | student | teacher | connections | gradient bytes a step |\n|---|---|---|---|---|")
    sizes: dict[Network, int] = {}
    for network in NETWORKS:
        model = build(network)
        counts = {name: _count(part) for name, part in {"student": model.student, **model.auxiliary()}.items()}
        sizes[network] = 4 * sum(counts.values())
        cells = " | ".join(f"{counts[name]:,}" for name in ("student", "teacher", "connections"))
        print(f"| {network.student}, {network.kernels} | {cells} | {sizes[network] / 1e6:.1f} MB |")
    print("\n| student |", " | ".join(LINKS), "|\n|---|---|---|---|")
    for network, size in sizes.items():
        times = " | ".join(f"{1e3 * ring_seconds(size, gpus, rate):.1f} ms" for gpus, rate in LINKS.values())
        print(f"| {network.student} | {times} |")
    _print_imagenet(sizes[IMAGENET])


def _print_imagenet(size: int) -> None:
    model = build(IMAGENET)
    step = step_seconds(model, IMAGENET, BATCH)
    print(f"\nImageNet, {BATCH} images a GPU: {1e3 * step:.1f} ms of arithmetic a step")
    print("| GPUs | steps an epoch | hours | gradients through a link, a step |\n|---|---|---|---|")
    for gpus in GPUS:
        steps = -(-IMAGES // (BATCH * gpus))
        through = 2 * (gpus - 1) / gpus * size
        print(f"| {gpus} | {steps:,} | {EPOCHS * steps * step / 3600:.1f} | {through / 1e6:.0f} MB |")
    print("\n| backend | GB at 32 images | GB at 64 |\n|---|---|---|")
    for backend in BACKENDS:
        memory = measure_training_memory(build(IMAGENET, backend), torch.zeros(3, 3, IMAGENET.side, IMAGENET.side))
        print(f"| {backend} | {memory.total(32) / 1e9:.1f} | {memory.total(64) / 1e9:.1f} |")


def _count(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


if __name__ == "__main__":
    main()
