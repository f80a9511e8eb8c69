from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ecd_deploy.compat.pydantic import only_from_python


class Part(BaseModel, strict=True):
    sizes: tuple[int, ...]

    @only_from_python
    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise LookupError(str(error)) from error


class Whole(BaseModel, strict=True):
    part: Part


def test_python_calls_it_and_a_document_does_not() -> None:
    assert Whole.model_validate_json('{"part": {"sizes": [1, 2]}}').part == Part(sizes=(1, 2))
    with pytest.raises(LookupError, match="sizes"):
        Part(sizes=[1])
    with pytest.raises(ValidationError, match=r"part\.sizes\.0"):
        Whole.model_validate_json('{"part": {"sizes": ["x"]}}')
