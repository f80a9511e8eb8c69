"""The committed sets of versions against the ranges of pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ecd_deploy.recipe.export import EXTRA_FORMATS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# None lies in the development environment, and none is tested with the oldest versions.
APART = {"datasets", "docs", "tracking", *EXTRA_FORMATS}


def ranges(*groups: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(each.name): each for each in requirements if each.name != PROJECT["name"]}


TRAINING = ranges(PROJECT["dependencies"], EXTRAS["train"])
OFFERED = ranges(PROJECT["dependencies"], *(EXTRAS[name] for name in EXTRAS.keys() - APART - {"dev"}))
INSTALLED = {**OFFERED, **ranges(EXTRAS["dev"])}


def pins(name: str) -> dict[str, Version]:
    """The version of each package in a file of constraints; a line that is no exact version is an error."""
    found: dict[str, Version] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert (specifier.operator, requirement.url) == ("==", None), line
        found[canonicalize_name(requirement.name)] = Version(specifier.version)
    return found


@pytest.mark.parametrize(
    ("name", "required"),
    [("constraints.txt", INSTALLED), ("constraints-oldest.txt", OFFERED), ("constraints-gpu.txt", TRAINING)],
)
def test_a_set_names_one_admitted_version_of_all_that_is_required(name: str, required: dict[str, Requirement]) -> None:
    versions = pins(name)
    assert required.keys() <= versions.keys()
    refused = {
        package: str(versions[package]) for package, each in required.items() if versions[package] not in each.specifier
    }
    assert not refused


def test_the_oldest_set_is_the_floors() -> None:
    floors = {
        package: Version(bound.version)
        for package, each in OFFERED.items()
        for bound in each.specifier
        if bound.operator == ">="
    }
    assert floors == pins("constraints-oldest.txt")


def test_each_range_has_a_ceiling() -> None:
    endless = [name for name, each in OFFERED.items() if "<" not in {bound.operator for bound in each.specifier}]
    assert not endless


def test_constraints_leave_other_pythons_free() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    markers = [Requirement(line).marker for line in lines if not line.startswith("#")]
    assert all(marker is not None and marker.evaluate({"python_version": "3.11"}) for marker in markers)
    assert not any(marker is not None and marker.evaluate({"python_version": "3.13"}) for marker in markers)
