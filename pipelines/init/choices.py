"""What is sensible to begin with for a folder of images, and why: rules of thumb, each beside its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from ecd_deploy.measure.statistics import accuracy_lower_bound, drop_upper_bound
from ecd_deploy.models.sizes import student_sizes
from ecd_deploy.pipelines.init.folder import ImageFacts

_SIDES = (32, 48, 64, 96, 128, 160)
_MULTIPLE = 8  # of which a longer side is one: networks halve it several times
_LEAST_FOR_WEIGHTS = 64  # pixels: below, what ImageNet's weights look for is not to be seen
_FEW = 20_000  # training images
_VERY_FEW = 1_000
_VERY_SMALL = 16  # pixels
_STEPS_FROM_WEIGHTS = 1_000
_STEPS_FROM_NOTHING = 6_000
_RESNET18 = 11_176_512  # parameters without the last layer, which has 513 for each class
_CONFIDENCE = 0.95
_LEAST_OF_A_CLASS = 20  # test images: with fewer, the bound on its recall says little


@dataclass(frozen=True)
class Choice:
    """A value of the recipe, by its key in the section, and why it was chosen."""

    key: str
    value: str | int | float | bool | tuple[float, ...]
    why: str


@dataclass(frozen=True)
class Network:
    """A student, what it starts from, its parameters, and why it was chosen."""

    name: str
    pretrained: bool
    parameters: int
    why: str


def choose_data(facts: ImageFacts, size: tuple[int, int]) -> Iterator[Choice]:
    """Values of `[data]`, but for the source."""
    yield Choice("image_size", size if size[0] != size[1] else size[0], _why_size(facts, size))
    if facts.one_size:
        yield Choice("crop_padding", max(1, min(size) // 8), "shift each image by up to an eighth, at random")
    else:
        yield Choice("loading", "files", "the images have many sizes: crop each anew in every epoch")
        yield Choice("random_resized_crop", (0.35, 1.0), "share of an image's area; lower it if objects fill the image")
    if facts.channels == 1:
        yield Choice("horizontal_flip", False, "grey images are often writing; true if left and right are alike")
    else:
        yield Choice("horizontal_flip", True, "false if left and right differ, as in writing")
    if not facts.has_validation:
        share = 0.1 if facts.images >= _VERY_FEW else 0.2
        yield Choice("validation_fraction", share, "cut off the training images, to choose the best epoch by")


def choose_size(facts: ImageFacts) -> tuple[int, int]:
    """Height and width in pixels that all images are brought to: a square, but where all have another proportion."""
    if facts.one_size and max(facts.width, facts.height) <= _SIDES[-1]:
        return facts.height, facts.width
    side = max((side for side in _SIDES if side <= facts.shorter_side), default=facts.shorter_side)
    if not facts.one_size:
        return side, side
    longer = _MULTIPLE * round(side * max(facts.width, facts.height) / (_MULTIPLE * facts.shorter_side))
    return (longer, side) if facts.height > facts.width else (side, max(side, longer))


def choose_network(facts: ImageFacts, size: tuple[int, int]) -> Network:
    """A student that suits the number of the images and their size."""
    few, side = facts.images < _FEW, min(size)
    if side >= _LEAST_FOR_WEIGHTS:
        colour, timm = facts.channels == 3, find_spec("timm") is not None
        if colour or timm:
            name = "torchvision:resnet18" if colour else f"timm:resnet18{'.a1_in1k' * few}"
            why = f"{'few' if few else 'many'} images: {'start from ImageNet' if few else 'train from fresh weights'}"
            return Network(name, few, _RESNET18 + 513 * len(facts.classes), why)
    name = "resnet8" if side <= _VERY_SMALL or facts.images < _VERY_FEW else "resnet20"
    parameters = next(entry.parameters for entry in student_sizes() if entry.name == name)
    return Network(name, False, parameters, f"suits images of {side} pixels; `ecd-deploy models` has larger ones")


def choose_training(facts: ImageFacts, network: Network) -> Iterator[Choice]:
    """Values of `[train]`."""
    batch = _batch_size(facts.images, pretrained=network.pretrained)
    steps = -(-facts.images // batch)
    wanted = _STEPS_FROM_WEIGHTS if network.pretrained else _STEPS_FROM_NOTHING
    epochs = min(max(-(-wanted // steps), 5), 60 if network.pretrained else 200)
    yield Choice("epochs", epochs, f"about {steps} steps each, {epochs * steps:,} in all")
    yield Choice("batch_size", batch, f"of {facts.images} training images")
    if network.pretrained:
        yield Choice("optimizer", "adamw", "usual for weights that are fine-tuned")
        yield Choice("learning_rate", 5e-4, "of the fresh head; student.backbone_rate scales the rest")
        yield Choice("patience", max(5, epochs // 3), "epochs without a better one, after which the training ends")
    else:
        yield Choice("learning_rate", 0.1 if batch >= 64 else 0.05, "usual for SGD and a batch of this size")
    yield Choice("schedule", "cosine", "needs no epochs to be chosen at which the rate falls")
    yield Choice("warmup_epochs", 1.0, "the rate rises from zero, so that the first steps do no harm")
    if facts.is_unequal:
        yield Choice("class_weights", "balanced", "the classes are unequal: images of the small ones count more")
        yield Choice("select", "balanced_accuracy", "deploy the epoch with the best average recall of the classes")


def choose_limits(facts: ImageFacts, network: Network) -> Iterator[Choice]:
    """Values of `[gate]`, each one that these test images can decide."""
    images = sum(facts.test_images)
    largest = max(facts.test_images) / images
    best = accuracy_lower_bound(images, images, _CONFIDENCE)
    floor = min((1 + largest) / 2, best - 0.01)
    why = f"always naming the largest class reaches {largest:.2f}: raise it to what you need, up to {best:.3f}"
    yield Choice("min_top1", math.floor(100 * floor) / 100, why)
    if facts.is_unequal and min(facts.test_images) >= _LEAST_OF_A_CLASS:
        chance = 1 / len(facts.classes)
        why = "the classes are unequal: this counts each of them alike"
        yield Choice("min_balanced_accuracy", math.floor(50 * (1 + chance)) / 100, why)
    least = drop_upper_bound(0, 0, images, _CONFIDENCE)
    why = f"ONNX against PyTorch; {images} test images can show {least:.4f} at best"
    yield Choice("max_drop", max(0.01, math.ceil(200 * least) / 200), why)
    size = 4 * network.parameters / 1e6
    yield Choice("max_size_mb", float(math.ceil(1.2 * size)), f"of the ONNX file; the student's weights are {size:.1f}")


def _why_size(facts: ImageFacts, size: tuple[int, int]) -> str:
    if facts.one_size and size == (facts.height, facts.width):
        return "as they are"
    if size[0] != size[1]:
        return "height and width in the images' proportion; more pixels take longer"
    if min(size) == _SIDES[-1]:
        return "large enough to begin with; 224 has twice the pixels"
    return f"the shorter side of the median image has {facts.shorter_side} pixels"


def _batch_size(images: int, *, pretrained: bool) -> int:
    wanted = 32 if pretrained or images < _VERY_FEW else 64 if images < 5 * _VERY_FEW else 128
    return max(4, min(wanted, 1 << int(math.log2(max(16, images) / 4))))
