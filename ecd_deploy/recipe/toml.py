"""TOML that a user gives, whatever it holds."""

from __future__ import annotations

import json
import tomllib
from typing import Any


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a document whose values JSON can hold.

    Raises:
        ValueError: it is no TOML, is nested too deeply, or holds a number of too many digits.
    """
    try:
        document = tomllib.loads(text)
        json.dumps(document, default=str)  # a hexadecimal number is parsed at any length, but cannot be written
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("a number in it has too many digits") from error
    return document
