"""Opens artefacts in runtimes that come with extras, by the code that times them on devices."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.reason import first_cause
from ecd_deploy.measure.device.runner.runtimes import Opened, open_file
from ecd_deploy.measure.predictors.prediction import Predictor
from ecd_deploy.quiet import library_quiet


def missing_extra(extra: str, error: ImportError) -> ExportError:
    """What to install."""
    return ExportError(f"the format needs the extra [{extra}]: pip install 'ecd-deploy[{extra}]' ({error})")


def opened_in(runtime: str, data: bytes, threads: int) -> Opened:
    """Open an artefact in a runtime that has an extra of its name.

    Raises:
        ExportError: the extra is not there, or the runtime cannot open the artefact.
    """
    with tempfile.TemporaryDirectory() as folder, library_quiet():
        path = Path(folder, "artefact")
        path.write_bytes(data)
        try:
            return open_file(runtime, str(path), threads)
        except ImportError as error:
            raise missing_extra(runtime, error) from error
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"{runtime} cannot open the artefact: {first_cause(error)}") from error


def one_by_one(opened: Opened) -> Predictor:
    """Give a runtime that takes one image at a time as many as there are."""
    return lambda images: np.concatenate([opened.run(image[np.newaxis]) for image in images])
