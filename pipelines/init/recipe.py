"""The first recipe for a folder of images, as text."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tomli_w

from ecd_deploy.data.imagefolder.listing import Listings
from ecd_deploy.data.sources.tables import LABEL, PATH, SPLIT
from ecd_deploy.errors import UsageError
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.init.choices import (
    Choice,
    Network,
    choose_data,
    choose_limits,
    choose_network,
    choose_size,
    choose_training,
)
from ecd_deploy.pipelines.init.folder import ImageFacts
from ecd_deploy.recipe.recipe import parse_recipe

_COMMENTS_FROM = 34  # column


def recipe_name(root: Path) -> str:
    """The folder's name, as far as a recipe's name may hold it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", root.resolve().name).strip("._-") or "images"


def first_recipe(facts: ImageFacts, file: Path) -> str:
    """Write a recipe with a comment for each choice; it was read back, so a run takes it as it stands.

    Args:
        facts: of the folder.
        file: where the recipe will be.
    """
    size = choose_size(facts)
    network = choose_network(facts, size)
    unreadable = f"\n# {facts.unreadable} file(s) that were looked at cannot be read: a run names them and stops."
    text = f"""\
# {facts.words()}.{unreadable if facts.unreadable else ""}
# Every value is one to begin with. What does training cost?  ecd-deploy inspect {file}
# Does it all work?  ecd-deploy rehearse {file}    The run:  ecd-deploy run {file}
{_lines([Choice("name", recipe_name(facts.root), "")])}
[data]
{_lines(_choose_source(facts, file))}\
{_lines(choose_data(facts, size))}
[student]
{_student(network)}
[method]
{_lines([Choice("name", "ecd", "'plain' trains the student alone, to compare with")])}\
{_lines([Choice("kernels", 8, "of each of the teacher's convolutions; 16 in the paper, which takes longer")])}
[train]
{_lines(choose_training(facts, network))}
[gate]
{_lines(choose_limits(facts, network))}\
# p90_ms_max = 10.0               # of your device, for one image; `ecd-deploy profile` measures it
"""
    parse_recipe(text, f"the recipe for {facts.root}")
    return text


def write_recipe(facts: ImageFacts, path: Path, *, force: bool) -> tuple[Path, ...]:
    """Write the first recipe, and for a folder without splits the table that has them; these files.

    Raises:
        UsageError: one of them is there, and not to be replaced, or the recipe would not be known as one.
        ArtefactError: one cannot be written.
    """
    if path.suffix != ".toml":
        raise UsageError(f"--out {path}: a recipe's name ends with .toml")
    texts = {path: first_recipe(facts, path)}
    if facts.cut is not None:
        texts[_table(path)] = _table_text(facts.cut, path.parent)
    for file in texts:
        if file.exists() and not (force and file.is_file()):
            raise UsageError(f"{file} is there already: choose another --out, or add --force to replace it")
    for file, text in texts.items():
        write_atomic(file, text.encode())
    return tuple(texts)


def _choose_source(facts: ImageFacts, file: Path) -> Iterator[Choice]:
    if facts.cut is None:
        yield Choice("source", "imagefolder", "train/CLASS/*, test/CLASS/* and, if there are any, val/CLASS/*")
        yield Choice("path", str(facts.root), "from the folder that the commands are given in")
    else:
        yield Choice("source", "csv", "the folder has no train/ and test/: a fifth of each class is for the test")
        yield Choice("path", str(_table(file)), "from the folder that the commands are given in")


def _table(recipe: Path) -> Path:
    return recipe.with_suffix(".csv")


def _table_text(listings: Listings, folder: Path) -> str:
    """The splits as a CSV file in `folder`."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow((PATH, LABEL, SPLIT))
    for split, listing in (("train", listings.train), ("test", listings.test)):
        for file, label in zip(listing.files, listing.labels.tolist(), strict=True):
            rows.writerow((os.path.relpath(file, folder), listing.classes[label], split))
    return text.getvalue()


def _student(network: Network) -> str:
    found = [Choice("name", network.name, network.why)]
    if network.pretrained:
        found.append(Choice("weights", "pretrained", "downloaded once, into the library's cache"))
        found.append(Choice("backbone_rate", 0.1, "share of the learning rate for what has weights"))
    return _lines(found)


def _lines(choices: Iterable[Choice]) -> str:
    lines = []
    for choice in choices:
        value = tomli_w.dumps({choice.key: choice.value}, multiline_strings=False).replace("\n", " ").strip()
        value = re.sub(r"\[\s+(.*?),\s+\]", r"[\1]", value)
        value = re.sub(r" {2,}", " ", value) if isinstance(choice.value, tuple) else value
        lines.append(f"{value:{_COMMENTS_FROM - 2}}  # {choice.why}\n" if choice.why else f"{value}\n")
    return "".join(lines)
