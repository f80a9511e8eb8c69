"""An ONNX file of any origin: what stands in it, and what is known of how to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ecd_deploy.errors import ArtefactError, ExportError, UsageError, reraise_machine_fault
from ecd_deploy.exporters.metadata import ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.onnx.graph import check_embedded, get_metadata
from ecd_deploy.files import read_bytes, sha256_bytes
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.recipe.input import InputConfig, check_resize

_DTYPES: Final[Mapping[int, Literal["float32", "float16", "uint8"]]] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
}
_COLOURS: Final = (1, 3)


@dataclass(frozen=True)
class Port:
    """An input or output of a file; a free side is a name, or `?`."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def words(self) -> str:
        """Name, type and shape."""
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was parsed.

    Attributes:
        path: where it lies.
        data: its bytes, with all weights inside.
        sha256: of these bytes.
        inputs: without those that have a value in the file.
        outputs: in their order.
        metadata: where this project wrote the file.
    """

    path: Path
    data: bytes
    sha256: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: ArtefactMetadata | None

    def words(self) -> str:
        """What the file takes and gives."""
        inputs, outputs = ("; ".join(port.words() for port in ports) for ports in (self.inputs, self.outputs))
        return f"{self.path.name} takes {inputs}, and gives {outputs}"


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
    source: Literal["the model's metadata", "[input]"]

    @property
    def classes_from(self) -> Literal["the model's metadata", "input.classes", "the images"]:
        """Where the names of the outputs are known from."""
        if self.classes is None:
            return "the images"
        return "the model's metadata" if self.source == "the model's metadata" else "input.classes"


def read_onnx_file(path: Path) -> OnnxFile:
    """Read and parse a file, with the weights that it keeps in other files of its folder; nothing of it is run.

    Raises:
        UsageError: there is no such file.
        ArtefactError: it is no ONNX model, is cut off, or its weights cannot be read or lie outside of its folder.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    data = read_bytes(path)
    model = _parsed(path, data)
    try:
        check_embedded(model)
    except ExportError:
        data = _with_weights(path, model)
    return _described(path, data, model)


def parse_onnx(path: Path, data: bytes) -> OnnxFile:
    """Parse a model that was read from `path`; nothing of it is run.

    Raises:
        ArtefactError: it is no ONNX model, is cut off, or keeps tensors in another file.
    """
    model = _parsed(path, data)
    try:
        check_embedded(model)
    except ExportError as error:
        raise ArtefactError(f"{path}: {error}") from error
    return _described(path, data, model)


def _parsed(path: Path, data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ArtefactError(f"{path} is not an ONNX model, or is cut off: it cannot be parsed") from error
    if not model.graph.node or not model.graph.output:
        raise ArtefactError(f"{path} is not an ONNX model: it has no operators or no outputs")
    return model


def _with_weights(path: Path, model: onnx.ModelProto) -> bytes:
    """The bytes of the model with the weights inside that it keeps in other files."""
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        data: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:
        reraise_machine_fault(error)
        cause = " ".join(str(error).split())
        raise ArtefactError(f"{path}: weights that it keeps in another file cannot be read: {cause}") from error
    return data


def _described(path: Path, data: bytes, model: onnx.ModelProto) -> OnnxFile:
    text = get_metadata(model)
    inside = {tensor.name for tensor in model.graph.initializer}
    return OnnxFile(
        path=path,
        data=data,
        sha256=sha256_bytes(data),
        inputs=_ports(value for value in model.graph.input if value.name not in inside),
        outputs=_ports(model.graph.output),
        metadata=None if text is None else parse_metadata(text, path.name),
    )


def with_size(file: OnnxFile, preprocessing: Preprocessing) -> bytes:
    """The file's bytes, with height and width of its input fixed where they are free."""
    (port,) = file.inputs
    if all(isinstance(side, int) for side in port.shape[1:]):
        return file.data
    model = onnx.load_model_from_string(file.data)
    value = next(value for value in model.graph.input if value.name == port.name)
    channels = preprocessing.decoded_channels
    sides = (channels, preprocessing.height, preprocessing.width)
    sides = sides if preprocessing.layout == "nchw" else (*sides[1:], channels)
    for dimension, side in zip(value.type.tensor_type.shape.dim[1:], sides, strict=True):
        dimension.dim_value = side
    # What is written of values in between holds for the free sides, by their names.
    del model.graph.value_info[:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def expect(file: OnnxFile, config: InputConfig) -> Expectation:
    """Put together what the file and the configuration say.

    Raises:
        UsageError: something is missing, with what was found in the file; or the two contradict each other.
        ArtefactError: the file takes or gives something else than a classifier of images.
    """
    if len(file.inputs) != 1:
        names = ", ".join(port.name for port in file.inputs) or "none"
        raise ArtefactError(
            f"a classifier of images has one input, and this has {len(file.inputs)}, {names}; {file.words()}"
        )
    (port,) = file.inputs
    if port.dtype not in _DTYPES.values() or len(port.shape) != 4:
        raise ArtefactError(f"images are float32, float16 or uint8 with four sides; {file.words()}")
    said = config.model_fields_set - {"output"}
    if file.metadata is not None and said:
        raise UsageError(
            f"{file.path.name} was written by this project and says itself what it expects: remove "
            f"{', '.join(f'input.{key}' for key in sorted(said))}"
        )
    if config.dtype is not None and config.dtype != port.dtype:
        raise UsageError(f"input.dtype is {config.dtype}; {file.words()}")
    batch = port.shape[0]
    return Expectation(
        input=port.name,
        output=_output(file, config),
        batch=batch if isinstance(batch, int) else None,
        preprocessing=_of_metadata(file.metadata) if file.metadata else _of_config(file, port, config),
        classes=file.metadata.classes if file.metadata else read_classes(config),
        scores="logits" if file.metadata else config.scores,
        source="the model's metadata" if file.metadata else "[input]",
    )


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


def _ports(values: Iterable[onnx.ValueInfoProto]) -> tuple[Port, ...]:
    return tuple(_port(value) for value in values)


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    number = tensor.elem_type
    known = _DTYPES.get(number)
    name = onnx.TensorProto.DataType.Name(number).lower() if number in onnx.TensorProto.DataType.values() else "unknown"
    shape = tuple(side.dim_value if side.dim_value > 0 else side.dim_param or "?" for side in tensor.shape.dim)
    return Port(value.name, known or name, shape)


def _output(file: OnnxFile, config: InputConfig) -> str:
    names = [port.name for port in file.outputs]
    if config.output is not None:
        if config.output not in names:
            raise UsageError(f"input.output is {config.output!r}; {file.words()}")
        return config.output
    if len(names) > 1:
        raise UsageError(f"set input.output to one of {', '.join(names)}; {file.words()}")
    return names[0]


def _of_metadata(metadata: ArtefactMetadata) -> Preprocessing:
    channels, height, width = metadata.input_shape
    inside = metadata.preprocessing == "inside"
    return Preprocessing(
        height=height,
        width=width,
        resize=metadata.resize,
        channels="grey" if channels == 1 else "rgb",
        scale=1.0,
        mean=metadata.mean,
        std=metadata.std,
        layout="nhwc" if inside else "nchw",
        dtype="uint8" if inside else "float32",
    )


def _of_config(file: OnnxFile, port: Port, config: InputConfig) -> Preprocessing:
    layout = config.layout or _layout(file, port)
    channels, height, width = port.shape[1:] if layout == "nchw" else (port.shape[3], *port.shape[1:3])
    if isinstance(channels, str) and config.mean is not None:
        channels = len(config.mean)
    if channels not in _COLOURS:
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
    if isinstance(config.resize, int):
        try:
            check_resize(config.resize, *size)
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
    first, last = port.shape[1] in _COLOURS, port.shape[3] in _COLOURS
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
