"""What the Dockerfile and .dockerignore promise; `make images` builds them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STAGES = {
    name: (base, text)
    for base, name, text in re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE)
}
IMAGES = [name for name, (_, text) in STAGES.items() if "ENTRYPOINT" in text]


def test_there_are_three_images_and_only_the_base_comes_from_elsewhere() -> None:
    assert IMAGES == ["edge", "gate", "train"]
    assert [base for base, _ in STAGES.values() if base not in STAGES] == ["${BASE}"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_a_user_a_health_check_and_labels(image: str) -> None:
    base, text = STAGES[image]
    assert base == "python"
    assert re.findall(r"^USER (.*)$", text, re.M) == ["1000:1000"]
    assert re.search(r"^HEALTHCHECK --interval=1h .*CMD \[", text, re.M)
    for label in ("title", "description", "licenses", "revision", "version"):
        assert f"org.opencontainers.image.{label}=" in text


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_gets_files_alone_and_no_argument_of_the_package_index(image: str) -> None:
    """What installs is thrown away, and with it pip and the address of an index, which may hold a password."""
    base, text = STAGES[image]
    for stage in (text, STAGES[base][1]):
        assert "pip" not in re.sub(r"^#.*$", "", stage, flags=re.M).lower()
    assert "RUN" not in text


def test_versions_are_those_of_the_constraints() -> None:
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 3
    assert all("--constraint" in install and "==" not in install for install in installs)


def test_no_secret_of_a_checkout_enters_the_context() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert rules[1] == "*"
    last_kept = max(number for number, rule in enumerate(rules) if rule.startswith("!"))
    assert {"**/.env", "**/.git", "**/__pycache__"} <= set(rules[last_kept:])
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for name in line.split()[:-1]]
    assert {f"!{name.split('/')[0]}" for name in copied} == {rule for rule in rules if rule.startswith("!")}
