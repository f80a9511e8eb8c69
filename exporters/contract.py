"""What a format must offer to be exported to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from ecd_deploy.exporters.metadata import ArtefactMetadata
from ecd_deploy.measure.prediction import Predictor
from ecd_deploy.split import SplitStudent

StudentBuilder = Callable[[], nn.Module]
"""Builds the plain student anew, with weights of no matter."""


class Exporter(Protocol):
    """One artefact format: how a student is written, and how the file is run again.

    An implementation promises that
    - `export` accepts nothing but a `SplitStudent`, and leaves it as it was;
    - the bytes are the whole artefact: no second file, no external data;
    - they hold the student's tensors (or what they fold into) and nothing of what was trained beside it;
    - any batch size runs, and input and output are float32, `images` (N, C, H, W) and `logits` (N, classes);
    - the metadata are inside, as JSON, with the student's digest;
    - no absolute path and no user name of this machine is in any byte (`paths.refuse_local_paths`);
    - the same student and metadata give the same bytes, in any process, directory or hash seed;
    - warnings of the libraries used do not leave it, and their errors leave it as `ExportError`.

    `open` runs code or parsers on what it is given: the caller checks the digest of foreign bytes first.
    """

    @property
    def format(self) -> str:
        """Name of the format in a recipe."""

    @property
    def filename(self) -> str:
        """Name of the artefact, without a folder."""

    def export(self, student: SplitStudent, metadata: ArtefactMetadata) -> bytes:
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

        Raises:
            ExportError: the bytes are no artefact of this format, or do not fit the student.
        """

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read what the artefact says about itself.

        Raises:
            ExportError: the bytes are no artefact of this format, or hold no metadata.
        """
