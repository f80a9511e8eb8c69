"""The recipe's section `[student]`: the network that is deployed, and what it starts from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.recipe.section import PositiveFloat, Section

PRETRAINED = "pretrained"
_LIBRARIES = ("torchvision:", "timm:")
Head = Literal["replace", "keep"]


class StudentConfig(Section):
    """The network that is deployed, and what it starts from."""

    name: str = Field(
        description="A built-in name, `torchvision:NAME`, `timm:NAME` or `package.module:factory`, whose "
        "module is looked for on Python's path and in the current folder."
    )
    num_classes: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Checked against the data; default: taken from the data."
    )
    unused: tuple[str, ...] = Field(
        default=(),
        description="Tensors of the network, or modules that hold them, that its logits do not depend on and that are "
        "shipped all the same; any other is refused at the split.",
    )
    weights: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="What the network starts from: `pretrained` for those of torchvision or timm, which are downloaded "
        "into their cache, a file `.safetensors`, or the directory of an earlier run. Mean and std are theirs, unless "
        "data.mean and data.std are given. Default: fresh ones.",
    )
    head: Head = Field(
        default="replace",
        description="Whether the tensors whose shape depends on the number of classes start fresh, drawn small so that "
        "all classes begin with nearly equal scores, or are taken from `weights` too.",
    )
    freeze: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="Names of parameters, or of modules that hold them, that stay as they are in `weights`; batch "
        "norms among them keep their statistics. `*` stands for anything without a dot, `**` for anything.",
    )
    backbone_rate: PositiveFloat = Field(
        default=1.0,
        description="Learning rate of what was taken from `weights`, as a share of train.learning_rate; in a teacher "
        "that starts as the student too.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights is None:
            for key in ("head", "freeze", "backbone_rate"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} has no effect without weights: 'pretrained', a .safetensors file or a run")
        if self.weights == PRETRAINED and not self.name.startswith(_LIBRARIES):
            raise ValueError(
                f"weights 'pretrained' are of torchvision:NAME and timm:NAME, '{self.name}' has none; give a "
                ".safetensors file or a run directory"
            )
        architecture, _, tag = self.name.removeprefix("timm:").partition(".")
        if self.name.startswith("timm:") and tag and self.weights != PRETRAINED:
            raise ValueError(
                f"name '{self.name}' names pretrained weights, which are not loaded: set weights = 'pretrained', or "
                f"say timm:{architecture}"
            )
        return self
