"""What docs/architecture.md and CONTRIBUTING.md name is there, and the layers are those that CI holds."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from ecd_deploy.pipelines.record import names

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", CONTRIBUTING + ARCHITECTURE)))
DOTTED = [name for name in QUOTED if re.fullmatch(r"ecd_deploy(\.\w+)+", name)]
# NAME and * stand for something, and a command has spaces.
PATHS = [name for name in QUOTED if re.fullmatch(r"[a-z_./]*(/|\.(py|md|toml))[a-z_./]*", name) and name not in DOTTED]
RUN_FILES = {value for name, value in vars(names).items() if name.endswith(("_NAME", "_FOLDER"))}


@pytest.mark.parametrize("name", DOTTED)
def test_a_dotted_name_exists(name: str) -> None:
    parts = name.split(".")
    found: object = import_module(parts[0])
    for count, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = import_module(".".join(parts[:count]))
    assert found is not None


@pytest.mark.parametrize("path", PATHS)
def test_a_path_exists(path: str) -> None:
    assert (ROOT / path).exists() or path.rstrip("/") in RUN_FILES


def test_the_steps_leave_files_of_these_names() -> None:
    rows = re.findall(r"^\| \w+ \| `[\w.]+` \| (.*) \|$", ARCHITECTURE, re.MULTILINE)
    left = {name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert len(rows) == 8
    assert left <= RUN_FILES
    # Those that no step leaves: the lock, the signature, what a study notes of an arm, and the profiles of devices.
    assert RUN_FILES - left == {".lock", "MANIFEST.sig", "arm.json", "environment.json", "profiles"}


def test_the_map_has_every_folder() -> None:
    listed = set(re.findall(r"`((?:ecd_deploy|pipelines)/[\w/]*)/`", CONTRIBUTING))
    packages = {path.parent for top in ("ecd_deploy", "pipelines") for path in (ROOT / top).rglob("*/__init__.py")}
    # ecd_deploy/ has links to the folders at the root.
    assert {path.relative_to(ROOT).as_posix() for path in packages if not path.is_symlink()} <= listed


@pytest.mark.parametrize("container", ["ecd_deploy", "ecd_deploy.pipelines"])
def test_the_layers_are_those_of_the_contract(container: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == [container])
    block = CONTRIBUTING.partition(f"<!-- layers of {container} -->\n\n")[2].partition("\n\n")[0]
    assert [re.split(r" {2,}", line.strip())[0] for line in block.splitlines()] == layers
