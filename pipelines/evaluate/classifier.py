"""A model opened by onnxruntime: a function from batches of its input to one row of scores an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Thread
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ecd_deploy.errors import ArtefactError, UsageError, reraise_machine_fault
from ecd_deploy.exporters.onnx.file import OnnxFile, with_sides
from ecd_deploy.exporters.onnx.session import session_options
from ecd_deploy.measure.device.runner.operators import operators_of
from ecd_deploy.measure.device.runner.sessions import providers_of
from ecd_deploy.measure.predictors.untrusted import Limits as ProcessLimits
from ecd_deploy.measure.predictors.untrusted import check_untrusted
from ecd_deploy.pipelines.evaluate.expectation import Expectation
from ecd_deploy.system import usable_cpus

_MOST_IMAGES = 32
_MOST_BYTES = 64_000_000
SECONDS_OF_A_BATCH: Final = 120
_LIMITS: Final = ProcessLimits(seconds=SECONDS_OF_A_BATCH)
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
        provider: that is asked first, with its options: `NAME` or `NAME:key=value,...`.
        threads: of the session.
        batch_size: images that are given at once.
        outputs: scores an image.
    """

    file: OnnxFile
    expectation: Expectation
    data: bytes
    session: ort.InferenceSession
    provider: str
    threads: int
    batch_size: int
    outputs: int

    def scores(self, images: Input, under: ort.RunOptions | None = None) -> NDArray[np.float32]:
        """Scores (n, outputs) of at most `batch_size` images; a batch that must be whole is filled up.

        Args:
            images: as `preprocessing` makes them.
            under: options by which whoever waits for this thread ends the run; None where nobody does.

        Raises:
            ArtefactError: onnxruntime fails.
        """
        count, fixed = len(images), self.expectation.batch
        if fixed is not None and count < fixed:
            images = np.concatenate((images, np.repeat(images[-1:], fixed - count, axis=0)))
        try:
            found = self._run(images) if under is None else self._run_here(images, under)
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

    def _run_here(self, images: Input, options: ort.RunOptions) -> object:
        given = {self.expectation.input: images}
        return self.session.run([self.expectation.output], given, run_options=options)[0]

    def _run(self, images: Input) -> object:
        """Run the session in a thread, so that signals come through and a run that does not end is left.

        Raises:
            ArtefactError: it takes longer than the model was tried for.
        """
        options, found, faults = ort.RunOptions(), list[object](), list[BaseException]()

        def run() -> None:
            try:
                found.append(self._run_here(images, options))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                faults.append(error)

        thread = Thread(target=run, daemon=True)
        thread.start()
        try:
            thread.join(SECONDS_OF_A_BATCH)
        finally:
            options.terminate = True
        if faults:
            raise faults[0]
        if not found:
            raise ArtefactError(
                f"{self.file.path.name} does not finish {len(images)} image(s) within {SECONDS_OF_A_BATCH} s"
            )
        return found[0]


def open_classifier(
    file: OnnxFile, expectation: Expectation, provider: str | None = None, most: int = _MOST_IMAGES
) -> Classifier:
    """Open a model of any origin and run it once, after it was tried in another process, within limits.

    Args:
        file: the model.
        expectation: how it is used.
        provider: onnxruntime's, `NAME` or `NAME:key=value,...`; None for the CPU.
        most: images at once.

    Raises:
        UsageError: there is no such provider here.
        ArtefactError: it cannot be opened or run, takes too much time or memory, is no classifier, or is left to the
            CPU by the provider.
    """
    preprocessing = expectation.preprocessing
    channels, height, width = preprocessing.decoded_channels, preprocessing.height, preprocessing.width
    sides = (channels, height, width) if preprocessing.layout == "nchw" else (height, width, channels)
    data = file.data if preprocessing.framed_by_model else with_sides(file, sides)
    try:
        providers = providers_of(provider)
    except ValueError as error:
        raise UsageError(f"provider {provider}: {error}") from error
    size = 4 * channels * height * width
    batch_size = expectation.batch or max(1, min(most, _MOST_IMAGES, _MOST_BYTES // size))
    if preprocessing.framed_by_model:
        batch_size = 1  # images of other sizes do not fit into one batch
    check_untrusted(data, file.path.name, _LIMITS, batch_size=batch_size)
    threads = len(usable_cpus())
    options = session_options(threads)
    # Threads that wait by spinning would take the cores from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(data, options, providers=providers)
    except Exception as error:
        reraise_machine_fault(error)
        raise ArtefactError(f"onnxruntime cannot open {file.path}: {_first_line(error)}") from error
    one = np.zeros((1, *sides), dtype=_DTYPES[preprocessing.dtype])
    name, given = providers[0][0], ",".join(f"{key}={value}" for key, value in sorted(providers[0][1].items()))
    opened = Classifier(file, expectation, data, session, f"{name}:{given}" if given else name, threads, batch_size, 0)
    outputs = opened.scores(one).shape[1]
    if provider is not None:
        _check_provider(opened)
    if outputs < 2:
        raise ArtefactError(f"a classifier tells two classes or more apart, and {file.path.name} gives {outputs} score")
    return replace(opened, outputs=outputs)


def _check_provider(classifier: Classifier) -> None:
    """Refuse a provider that takes no operator."""
    try:
        operators_of(classifier.data, classifier.threads, classifier.provider)
    except RuntimeError as error:
        raise ArtefactError(f"{classifier.file.path.name}: {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:500] if str(error).strip() else type(error).__name__
