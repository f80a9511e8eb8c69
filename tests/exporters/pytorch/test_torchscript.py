from __future__ import annotations

import io
import zipfile

from tests.exporters.conftest import Exported


def test_the_archive_holds_a_frozen_program_and_no_traces(artefacts: dict[str, Exported]) -> None:
    with zipfile.ZipFile(io.BytesIO(artefacts["torchscript"].data)) as archive:
        names = archive.namelist()
        (code,) = (archive.read(name).decode() for name in names if name.endswith(".py"))
        assert archive.testzip() is None
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert not [name for name in names if "debug_pkl" in name or "traced_inputs" in name or "mangle" in name]
    assert "batch_norm" not in code
    assert "mangle" not in code
    assert "__parameters__ = []" in code
