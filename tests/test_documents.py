from __future__ import annotations

from pathlib import Path

import pytest

from ecd_deploy.documents import BuiltinDocuments, parse_toml
from ecd_deploy.errors import UsageError
from ecd_deploy.pipelines.device.budgets import BUILTIN_DEVICES
from ecd_deploy.pipelines.study.study import BUILTIN_STUDIES
from ecd_deploy.recipe.recipe import BUILTIN_RECIPES

KINDS = (BUILTIN_RECIPES, BUILTIN_STUDIES, BUILTIN_DEVICES)


@pytest.mark.parametrize("documents", KINDS, ids=lambda documents: documents.kind)
def test_what_comes_with_the_package_is_listed_and_read_by_name(documents: BuiltinDocuments) -> None:
    assert documents.names() == tuple(sorted(documents.names()))
    for name in documents.names():
        assert parse_toml(documents.text(name), name, UsageError)["description"]


@pytest.mark.parametrize("documents", KINDS, ids=lambda documents: documents.kind)
def test_a_name_that_is_not_there_is_told_with_the_nearest_and_all(documents: BuiltinDocuments) -> None:
    nearest = documents.names()[0]
    for read in (documents.text, documents.text_or_file):
        with pytest.raises(documents.failure, match=f"no {documents.kind} '{nearest}x'") as caught:
            read(f"{nearest}x")
        assert f"(did you mean '{nearest}'?)" in str(caught.value)
        assert all(name in str(caught.value) for name in documents.names())


def test_a_file_of_the_user_is_read_by_path_and_faults_in_it_are_located(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("name = 'own'\n")
    assert BUILTIN_RECIPES.text_or_file(str(path)) == "name = 'own'\n"
    path.write_bytes(b"\xff")
    with pytest.raises(BUILTIN_RECIPES.failure, match=r"cannot read recipe .*own\.toml"):
        BUILTIN_RECIPES.text_or_file(str(path))
    with pytest.raises(UsageError, match=r"own\.toml is not valid TOML: .*line 2"):
        parse_toml("a = 1\nb = ]\n", "own.toml", UsageError)
