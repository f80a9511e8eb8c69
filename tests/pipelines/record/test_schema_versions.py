"""What SECURITY.md promises of `schema_version`: every document has one, another is refused, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import ecd_deploy
from ecd_deploy.errors import SchemaError
from ecd_deploy.pipelines.evaluate.result import Evaluation
from ecd_deploy.pipelines.record.manifest import read_manifest
from ecd_deploy.pipelines.record.names import BOM_NAME, LOCK_NAME, MANIFEST_NAME
from ecd_deploy.pipelines.record.start import Start
from ecd_deploy.pipelines.search.candidate import Candidate
from ecd_deploy.pipelines.search.result import SearchReport
from ecd_deploy.pipelines.study.run import ArmRun
from ecd_deploy.records import Record
from ecd_deploy.training.trackers import TrackedRuns
from tests.commands import Ended, run_command
from tests.forging import forge_entry


@pytest.mark.parametrize("document", [ArmRun, Candidate, Evaluation, SearchReport, Start, TrackedRuns])
def test_a_document_that_few_runs_have_is_refused_as_the_others_are(document: type[Record]) -> None:
    own = document.model_fields["schema_version"].default
    for other in (own - 1, own + 1):
        with pytest.raises(SchemaError, match=f"x is not .*its schema_version is {other}, and {own} is read"):
            document.from_json(json.dumps({"schema_version": other}), "x is not a document")


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != LOCK_NAME)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_every_document_of_a_run_is_refused_by_its_name(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run[0], tmp_path / "run"))
    whole = contents(run)
    documents = [name for name in read_manifest(run).files if name.endswith(".json") and "/" not in name]
    documents = [MANIFEST_NAME, *(name for name in documents if name != BOM_NAME)]
    assert len(documents) >= 9
    for name in documents:
        own = json.loads(whole[name])["schema_version"]
        for other in (own - 1, own + 1):
            (run / name).write_text(json.dumps({**json.loads(whole[name]), "schema_version": other}, indent=2))
            if name != MANIFEST_NAME:
                forge_entry(run, name)
            before = contents(run)
            with pytest.raises(SchemaError, match=f"{name} is not .*its schema_version is {other}, and {own} is read"):
                ecd_deploy.report(run)
            assert contents(run) == before
            for changed in (name, MANIFEST_NAME):
                (run / changed).write_bytes(whole[changed])
    (run / MANIFEST_NAME).write_text('{"schema_version": 1}')
    ended = run_command(["report", run], cwd=tmp_path)
    assert (ended.code, len(ended.err.splitlines())) == (4, 1), ended.err
    (run / MANIFEST_NAME).write_bytes(whole[MANIFEST_NAME])
    assert run_command(["verify", run], cwd=tmp_path).code == 0
