"""What a model of any origin expects of its input, and what its output means."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.exporters.onnx.file import CHANNELS, IMAGE_TYPES, OnnxFile, Port
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.recipe.input import InputConfig
from ecd_deploy.recipe.sides import check_resize

Source = Literal["the model's metadata", "the bundle", "[input]"]
ClassesSource = Literal["the model's metadata", "the bundle", "input.classes", "the images"]


@dataclass(frozen=True)
class Expectation:
    """How a model is used.

    Attributes:
        input: name of its input.
        output: name of the output that is read.
        batch: the only batch size that runs; None for any.
        preprocessing: from an image to its input.
        classes: names of the outputs, in order; None where only the images tell.
        scores: what the output holds; None where its numbers tell.
        source: where that is known from.
    """

    input: str
    output: str
    batch: int | None
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    scores: Literal["logits", "probabilities"] | None
    source: Source

    @property
    def classes_from(self) -> ClassesSource:
        """Where the names of the outputs are known from."""
        if self.classes is None:
            return "the images"
        return "input.classes" if self.source == "[input]" else self.source


def expect(file: OnnxFile, config: InputConfig) -> Expectation:
    """Put together what the file and the configuration say.

    Raises:
        UsageError: something is missing, with what was found in the file; or the two contradict each other.
        ArtefactError: the file takes or gives something else than a classifier of images.
    """
    port = image_port(file)
    if file.metadata is not None:
        refuse_keys(config.model_fields_set - {"output"}, f"{file.path.name} was written by this project")
    if config.dtype is not None and config.dtype != port.dtype:
        raise UsageError(f"input.dtype is {config.dtype}; {file.words()}")
    batch = port.shape[0]
    return Expectation(
        input=port.name,
        output=_output(file, config),
        batch=batch if isinstance(batch, int) else None,
        preprocessing=Preprocessing.of_metadata(file.metadata) if file.metadata else _of_config(file, port, config),
        classes=file.metadata.classes if file.metadata else read_classes(config),
        scores="logits" if file.metadata else config.scores,
        source="the model's metadata" if file.metadata else "[input]",
    )


def image_port(file: OnnxFile) -> Port:
    """The one input of a classifier of images.

    Raises:
        ArtefactError: there are more, or it takes something else.
    """
    if len(file.inputs) != 1:
        names = ", ".join(port.name for port in file.inputs) or "none"
        raise ArtefactError(
            f"a classifier of images has one input, and this has {len(file.inputs)}, {names}; {file.words()}"
        )
    (port,) = file.inputs
    if port.dtype not in IMAGE_TYPES.values() or len(port.shape) != 4:
        raise ArtefactError(f"images are float32, float16 or uint8 with four sides; {file.words()}")
    return port


def refuse_keys(given: AbstractSet[str], why: str) -> None:
    """Refuse keys of `[input]` where a model needs none of them.

    Raises:
        UsageError: some are given.
    """
    if given:
        named = ", ".join(f"input.{key}" for key in sorted(given))
        raise UsageError(f"{why} and says itself what it expects: remove {named}")


def read_classes(config: InputConfig) -> tuple[str, ...] | None:
    """The names of the file that the configuration names, one a line.

    Raises:
        UsageError: it cannot be read, has a name twice, or fewer than two.
    """
    if config.classes is None:
        return None
    try:
        text = Path(config.classes).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"input.classes: cannot read {config.classes}: {error}") from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None or len(names) < 2:
        cause = f"has {len(names)} name(s)" if twice is None else f"has the name {twice!r} twice"
        raise UsageError(f"input.classes: {config.classes} {cause}: the name of one class a line is expected")
    return names


def _output(file: OnnxFile, config: InputConfig) -> str:
    names = [port.name for port in file.outputs]
    if file.metadata is not None and config.output is None:
        return file.metadata.output_name
    if config.output is not None:
        if config.output not in names:
            raise UsageError(f"input.output is {config.output!r}; {file.words()}")
        return config.output
    if len(names) > 1:
        raise UsageError(f"set input.output to one of {', '.join(names)}; {file.words()}")
    return names[0]


def _of_config(file: OnnxFile, port: Port, config: InputConfig) -> Preprocessing:
    layout = config.layout or _layout(file, port)
    channels, height, width = port.shape[1:] if layout == "nchw" else (port.shape[3], *port.shape[1:3])
    if isinstance(channels, str) and config.mean is not None:
        channels = len(config.mean)
    if channels not in CHANNELS:
        raise ArtefactError(
            f"a model of images takes 1 or 3 channels, and this has {channels} as {layout}; {file.words()}"
        )
    size = _size(file, config, height, width)
    values = {"mean": config.mean, "std": config.std}
    if port.dtype == "uint8":
        if config.mean is not None:
            raise UsageError(
                f"input.mean and input.std are without effect on uint8 pixels: remove them; {file.words()}"
            )
        values = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    for key, given in values.items():
        if given is None:
            _missing(file, f"{key} = [{', '.join(['...'] * channels)}]")
        if len(given) != channels:
            raise UsageError(f"input.{key} has {len(given)} value(s) for {channels} channel(s); {file.words()}")
    if isinstance(config.resize, int | tuple):
        try:
            check_resize(config.resize, "size", size)
        except ValueError as error:
            raise UsageError(f"input.resize: {error}") from error
    return Preprocessing(
        height=size[0],
        width=size[1],
        resize=config.resize,
        channels="grey" if channels == 1 else config.channels,
        scale=config.scale,
        mean=values["mean"] or (),
        std=values["std"] or (),
        layout=layout,
        dtype=port.dtype,
    )


def _layout(file: OnnxFile, port: Port) -> Literal["nchw", "nhwc"]:
    first, last = port.shape[1] in CHANNELS, port.shape[3] in CHANNELS
    if first == last:
        _missing(file, 'layout = "nchw" or "nhwc"')
    return "nchw" if first else "nhwc"


def _size(file: OnnxFile, config: InputConfig, height: int | str, width: int | str) -> tuple[int, int]:
    if config.size is None:
        if isinstance(height, str) or isinstance(width, str):
            _missing(file, "size = [height, width] (or --shape HEIGHTxWIDTH)")
        return height, width
    for given, found in zip(config.size, (height, width), strict=True):
        if isinstance(found, int) and found != given:
            raise UsageError(f"input.size is {config.size[0]} x {config.size[1]} (height x width); {file.words()}")
    return config.size


def _missing(file: OnnxFile, key: str) -> NoReturn:
    raise UsageError(
        f"{file.path.name} does not say what it expects: set {key} below [input] of --config, or with --set "
        f"input.KEY=VALUE; {file.words()}"
    )
