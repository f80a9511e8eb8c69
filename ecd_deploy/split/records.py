"""What is remembered of a tensor, and the digest of many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from ecd_deploy.files import sha256_bytes
from ecd_deploy.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

TensorKind = Literal["parameter", "buffer", "attribute"]


class TensorRecord(Record, strict=True):
    """What is remembered of a tensor: enough to recognise it bit by bit."""

    name: str
    kind: TensorKind
    dtype: str
    shape: tuple[int, ...]
    sha256: str


def records_digest(records: Iterable[TensorRecord]) -> str:
    """SHA-256 over names, kinds, types, shapes and contents, in the order given."""
    document = [record.model_dump(mode="json") for record in records]
    return sha256_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
