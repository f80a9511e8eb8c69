from __future__ import annotations

import pytest

from ecd_deploy.pipelines.gate.ci import escape


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("cat", "cat"),
        ("p90 [0.9, 1.1] ms", "p90 [0.9, 1.1] ms"),
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("<script>alert('&')</script>", "&lt;script&gt;alert('&amp;')&lt;/script&gt;"),
        ("two\nlines\r\x1b[2J", "two lines  [2J"),
        ("[a](javascript:b) [c]: d", "[a\\](javascript:b) [c\\]: d"),
    ],
)
def test_text_is_shown_as_it_is(text: str, escaped: str) -> None:
    assert escape(text) == escaped
