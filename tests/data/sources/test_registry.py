"""A source of another package: found by its entry point, and used like those of this one."""

from __future__ import annotations

import importlib
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

from ecd_deploy.data import ImageSet, load_data
from ecd_deploy.data.sources import registry
from ecd_deploy.data.sources.arrays import ArraySource
from ecd_deploy.errors import DataError, RecipeError, UsageError
from ecd_deploy.recipe import data as recipe_data
from ecd_deploy.recipe.data import DataConfig

PAGE = (Path(__file__).parents[3] / "docs" / "plugins.md").read_text(encoding="utf-8")


def stripes(config: DataConfig) -> ArraySource:
    """Bright and dark images; `path` is how many there are of a split."""
    count = int(config.path or "20")

    def split(offset: int) -> ImageSet:
        labels = np.arange(count) % 2
        brightness = np.arange(count, dtype=np.uint8) + offset + 100 * labels.astype(np.uint8)
        return ImageSet(np.broadcast_to(brightness[:, None, None, None], (count, 1, 8, 8)).copy(), labels)

    return ArraySource(split(0), split(60), ("dark", "bright"), None)


def broken(config: DataConfig) -> object:
    if config.path == "raise":
        raise KeyError("no such stripe")
    return object()


@pytest.fixture(autouse=True)
def announced(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = EntryPoints(
        EntryPoint(name, f"{__name__}:{function.__name__}", recipe_data.SOURCES_GROUP)
        for name, function in (("stripes", stripes), ("broken", broken))
    )
    monkeypatch.setattr(EntryPoint, "load", lambda entry: globals()[entry.attr])
    for module in (registry, recipe_data):
        monkeypatch.setattr(module, "entry_points", lambda *, group: entries.select(group=group))


def test_a_plug_in_s_images_are_those_of_the_run() -> None:
    data = load_data(DataConfig(source="stripes", path="30"), seed=0)
    assert data.classes == ("dark", "bright")
    assert (len(data.train), len(data.test)) == (27, 30)


def test_the_source_of_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"^```python\n(# shelf_source.py\n.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert code is not None
    (tmp_path / "shelf_source.py").write_text(code[1])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(globals(), "stripes", importlib.import_module("shelf_source").open_shelf)
    pixels = np.ones((20, 3, 8, 8), np.uint8) * np.arange(20, dtype=np.uint8)[:, None, None, None]
    labels = np.arange(20) % 2
    np.savez(
        tmp_path / "shelf.npz",
        allow_pickle=False,
        classes=np.array(["full", "empty"]),
        train_labels=labels,
        test_labels=labels,
        train_images=pixels,
        test_images=pixels + np.uint8(100),
    )
    data = load_data(DataConfig(source="stripes", path=str(tmp_path / "shelf.npz")), seed=0)
    assert data.classes == ("full", "empty")
    np.testing.assert_array_equal(data.test.images, pixels + np.uint8(100))


def test_what_is_wrong_with_a_plug_in_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^the plug-in of source 'broken', .*:broken, fails: KeyError: 'no such stripe'$"
    ):
        load_data(DataConfig(source="broken", path="raise"), seed=0)
    with pytest.raises(UsageError, match=r"lacks classes, train_labels, test_labels, has_validation, read$"):
        load_data(DataConfig(source="broken"), seed=0)
    with pytest.raises(RecipeError, match=r"data.loading 'files' needs image files, and source 'stripes' has none"):
        load_data(DataConfig(source="stripes", loading="files", image_size=8, cache_dir=str(tmp_path)), seed=0)
    with pytest.raises(
        RecipeError, match=r"datasets, broken, stripes, torchvision:NAME, hub:OWNER/NAME \(it is 'stripe'\)"
    ):
        DataConfig(source="stripe")
