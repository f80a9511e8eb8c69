"""What a format must offer to be exported to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from ecd_deploy.exporters.budget import ParityBudget
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.measure.predictors.prediction import Predictor
from ecd_deploy.recipe.profile import Runtime

if TYPE_CHECKING:
    from torch import nn

    from ecd_deploy.split import SplitStudent

StudentBuilder = Callable[[], "nn.Module"]
"""Builds the plain student anew, with weights of no matter."""


@dataclass(frozen=True)
class ExportInput:
    """What an artefact is made from.

    Attributes:
        student: proved separate.
        metadata: that the file carries; the exporter adds what it alone knows.
        context: real images, for formats that are calibrated.
        source: the file of the format that `Exporter.derived_from` names; None if it names none.
    """

    student: SplitStudent
    metadata: ArtefactMetadata
    context: ExportContext | None = None
    source: bytes | None = None


class Exporter(Protocol):
    """One artefact format: how a student is written, how the file is run again, and what it is made of.

    A format of this package is one class, named in `registry.py`. One of another package is found by an entry point
    of the group `ecd_deploy.exporters`: its name is that of the format, its object is called with the `ExportConfig`
    and returns an `Exporter`; `docs/plugins.md` shows one.

    An implementation promises that
    - `export` accepts nothing but a `SplitStudent`, and leaves it as it was;
    - the bytes are the whole artefact: no second file, no external data;
    - they hold the student's tensors (or what they fold into) and nothing of what was trained beside it;
    - input and output are float32, `images` (N, C, H, W) and `logits` (N, classes), for any N; what the file itself
      demands beyond that, one image at a time or uint8 pixels, its predictor takes care of and its metadata say;
    - the metadata are inside, as JSON, with the student's digest, and with that of the file it was made from, if any;
    - no absolute path and no user name of this machine is in any byte (`paths.refuse_local_paths`);
    - the same student and metadata give the same bytes, in any process, directory or hash seed;
    - warnings of the libraries used do not leave it, and their errors leave it as `ExportError`.

    Its module is imported, and `read_metadata` and `contents` run, where torch is not installed.
    `open` runs code or parsers on what it is given: the caller checks the digest of untrusted bytes first.
    """

    @property
    def format(self) -> str:
        """Name of the format in a recipe."""

    @property
    def filename(self) -> str:
        """Name of the artefact, without a folder."""

    @property
    def runtime(self) -> Runtime | Literal["torch", "other"]:
        """What runs the file; accuracy and latency are measured of all that a runtime of `profile.runtimes` runs."""

    @property
    def budget(self) -> ParityBudget | None:
        """How far the logits may be off; None where the format keeps float32, and `gate.max_abs_diff` holds."""

    @property
    def derived_from(self) -> str | None:
        """The format whose file `export` is given as `source`; None if it takes the student alone."""

    def export(self, given: ExportInput) -> bytes:
        """Write a student.

        Raises:
            ExportError: the format cannot express the student, or a promise above is broken.
        """

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:
        """Make an artefact ready to run on the CPU.

        Args:
            data: of `export`.
            build: for formats that hold tensors only; others do not call it.
            threads: of runtimes with threads of their own; torch keeps those of the process.

        Returns:
            What several threads may call at once where `runtime` is "onnxruntime".

        Raises:
            ExportError: the bytes are no artefact of this format, or do not fit the student.
        """

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read what the artefact says about itself.

        Raises:
            ExportError: the bytes are no artefact of this format, or hold no metadata.
        """

    def contents(self, data: bytes) -> Contents | None:
        """Read every tensor, and the rest, from the bytes of an artefact, without running any of it.

        Returns:
            What the audit traces to the student; None if the format has no reader, which leaves the gate undecided.

        Raises:
            ExportError: the bytes are no artefact of this format.
        """
