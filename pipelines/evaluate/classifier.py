"""A model opened by onnxruntime: a function from batches of its input to one row of scores an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ecd_deploy.errors import ArtefactError, reraise_machine_fault
from ecd_deploy.exporters.onnx.session import session_options
from ecd_deploy.measure.untrusted import check_untrusted
from ecd_deploy.pipelines.evaluate.model import Expectation, OnnxFile, with_size
from ecd_deploy.system import usable_cpus

_MOST_IMAGES = 256
_MOST_BYTES = 64_000_000
_DTYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}

Input = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint8]


@dataclass(frozen=True)
class Classifier:
    """A model that can be run.

    Attributes:
        file: what it was read from.
        expectation: how it is used.
        data: the bytes that run: the file's, with the sides of its input fixed.
        session: of onnxruntime.
        threads: of the session.
        batch_size: images that are given at once.
        outputs: scores an image.
    """

    file: OnnxFile
    expectation: Expectation
    data: bytes
    session: ort.InferenceSession
    threads: int
    batch_size: int
    outputs: int

    def scores(self, images: Input) -> NDArray[np.float32]:
        """Scores (n, outputs) of at most `batch_size` images; a batch that must be whole is filled up.

        Raises:
            ArtefactError: onnxruntime fails.
        """
        count, fixed = len(images), self.expectation.batch
        if fixed is not None and count < fixed:
            images = np.concatenate((images, np.repeat(images[-1:], fixed - count, axis=0)))
        try:
            (found,) = self.session.run([self.expectation.output], {self.expectation.input: images})
        except Exception as error:
            reraise_machine_fault(error)
            raise ArtefactError(f"onnxruntime cannot run {self.file.path}: {_first_line(error)}") from error
        rows = np.asarray(found, dtype=np.float32)
        if rows.shape[:1] != (len(images),) or rows.size != len(images) * max(rows.shape[1:2], default=0):
            raise ArtefactError(
                f"a classifier gives one row of scores an image, and {self.file.path.name} gives "
                f"{self.expectation.output} of {list(rows.shape)} for {len(images)} image(s)"
            )
        return rows.reshape(len(images), -1)[:count]


def open_classifier(file: OnnxFile, expectation: Expectation, *, trusted: bool = False) -> Classifier:
    """Open a model and run it once.

    Args:
        file: of any origin.
        expectation: how it is used.
        trusted: whether it is left to this process without being tried in another one first, within limits.

    Raises:
        ArtefactError: it cannot be opened or run, takes too much time or memory, or is no classifier.
    """
    data, preprocessing = with_size(file, expectation.preprocessing), expectation.preprocessing
    if not trusted:
        check_untrusted(data, file.path.name)
    threads = len(usable_cpus())
    options = session_options(threads)
    # Threads that wait by spinning would take the cores from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reraise_machine_fault(error)
        raise ArtefactError(f"onnxruntime cannot open {file.path}: {_first_line(error)}") from error
    shape = (preprocessing.decoded_channels, preprocessing.height, preprocessing.width)
    shape = shape if preprocessing.layout == "nchw" else (*shape[1:], shape[0])
    one = np.zeros((1, *shape), dtype=_DTYPES[preprocessing.dtype])
    batch_size = expectation.batch or max(1, min(_MOST_IMAGES, _MOST_BYTES // (4 * one.size)))
    opened = Classifier(file, expectation, data, session, threads, batch_size, outputs=0)
    outputs = opened.scores(one).shape[1]
    if outputs < 2:
        raise ArtefactError(f"a classifier tells two classes or more apart, and {file.path.name} gives {outputs} score")
    return Classifier(file, expectation, data, session, threads, batch_size, outputs)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:500] if str(error).strip() else type(error).__name__
