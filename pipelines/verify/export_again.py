"""The child process of `verify --reproduce`: exports a run's student and prints the digests, writing nothing."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from ecd_deploy.files import sha256_bytes
from ecd_deploy.pipelines.record.names import EXPORTS_FOLDER
from ecd_deploy.pipelines.record.run_directory import read_run
from ecd_deploy.pipelines.steps.data import recorded_data
from ecd_deploy.pipelines.steps.export import export_all
from ecd_deploy.pipelines.steps.split import open_student, read_proof


def main(root: Path) -> None:
    """Print the SHA-256 of each artefact by its path in the run directory, as one JSON line."""
    directory = read_run(root)
    data = recorded_data(directory)
    student = open_student(directory, data, read_proof(directory))
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)
        digests = {
            f"{EXPORTS_FOLDER}/{written.exporter.filename}": sha256_bytes(written.data)
            for written in export_all(directory.recipe, student, data)
        }
        os.chdir("/")
    sys.stdout.write(json.dumps(digests) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
