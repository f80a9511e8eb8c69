from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ecd_deploy
from ecd_deploy.data.sources.tables import read_csv
from ecd_deploy.pipelines.init.folder import ImageFacts, look_at
from ecd_deploy.pipelines.init.recipe import first_recipe
from ecd_deploy.pipelines.rehearse.applies import check_applies
from ecd_deploy.recipe.recipe import load_recipe, parse_recipe
from tests.commands import run_command


def save(root: Path, counts: dict[str, tuple[int, ...]], sizes: tuple[tuple[int, int], ...], mode: str = "RGB") -> Path:
    """Noise as `root/SPLIT/class N/*.png`, of these sizes (width, height) in turn."""
    generator = np.random.default_rng(0)
    for split, by_class in counts.items():
        for number, count in enumerate(by_class):
            folder = root / split / f"class {number}"
            folder.mkdir(parents=True)
            for index in range(count):
                width, height = sizes[index % len(sizes)]
                pixels = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{index}.png")
    return root


def facts(**changes: object) -> ImageFacts:
    known: dict[str, object] = {
        "root": Path("shelf"),
        "classes": ("a", "b"),
        "train_images": (500, 500),
        "test_images": (100, 100),
        "has_validation": False,
        "channels": 3,
        "width": 640,
        "height": 480,
        "one_size": False,
        "unreadable": 0,
    }
    return ImageFacts(**(known | changes))  # type: ignore[arg-type]


def test_the_folder_is_described(tmp_path: Path) -> None:
    root = save(tmp_path / "x", {"train": (4, 2), "val": (1, 1), "test": (1, 3)}, ((30, 20), (20, 40), (40, 30)), "L")
    (root / "train/class 1/broken.png").write_bytes(b"no image")
    found = look_at(root)
    assert (
        found.words()
        == "7 training images of 2 classes, 3 to 4 of each; 4 test images; grey, 30x20 pixels in the median"
    )
    assert (found.has_validation, found.unreadable, found.is_unequal) == (True, 1, False)
    assert "# 1 file(s) that were looked at cannot be read" in first_recipe(found, Path("x.toml"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 'name = "torchvision:resnet18", weights = "pretrained", image_size = 160, loading = "files"'),
        ({"channels": 1}, 'name = "timm:resnet18.a1_in1k", weights = "pretrained", horizontal_flip = false'),
        ({"train_images": (40_000, 40_000)}, 'name = "torchvision:resnet18", optimizer = None, batch_size = 128'),
        ({"width": 32, "height": 32, "one_size": True}, 'name = "resnet20", image_size = 32, crop_padding = 4'),
        ({"width": 8, "height": 8, "one_size": True}, 'name = "resnet8", image_size = 8, crop_padding = 1'),
        ({"width": 640, "height": 480, "one_size": True}, "image_size = [160, 216], crop_padding = 20"),
        ({"width": 100, "height": 400, "one_size": True}, "image_size = [384, 96], crop_padding = 12"),
        ({"width": 28, "height": 40, "one_size": True}, 'name = "resnet20", image_size = [40, 28], crop_padding = 3'),
        ({"width": 100, "height": 60}, 'name = "resnet20", image_size = 48, random_resized_crop = [0.35, 1.0]'),
        ({"has_validation": True}, "validation_fraction = None, batch_size = 32"),
        ({"train_images": (10, 10)}, "validation_fraction = 0.2, batch_size = 4, class_weights = None, select = None"),
        ({"train_images": (900, 100)}, "min_balanced_accuracy = 0.75, min_top1 = 0.75"),
        ({"train_images": (900, 100)}, 'class_weights = "balanced", select = "balanced_accuracy"'),
        ({"train_images": (900, 100), "test_images": (90, 10)}, "min_balanced_accuracy = None, min_top1 = 0.95"),
    ],
)
@pytest.mark.needs("timm")
def test_what_is_chosen(changes: dict[str, object], expected: str) -> None:
    text = first_recipe(facts(**changes), Path("shelf.toml"))
    for wanted in re.split(r", (?=\w+ =)", expected):
        key = wanted.partition(" = ")[0]
        found = re.findall(rf"^{key} = .*?(?=  #|$)", text, re.MULTILINE)
        found = [line.strip() for line in found if not line.startswith(('name = "shelf"', 'name = "ecd"'))]
        assert found == ([] if wanted.endswith("None") else [wanted])


@pytest.mark.parametrize("count", [1, 10, 40, 1000, 50_000])
@pytest.mark.parametrize("side", [8, 32, 300])
def test_every_value_has_its_reason_and_every_limit_can_be_decided(count: int, side: int) -> None:
    given = facts(test_images=(count, count), train_images=(count, 5 * count), width=side, height=side, one_size=True)
    text = first_recipe(given, Path("shelf.toml"))
    recipe = parse_recipe(text, "text")
    assert check_applies(recipe, 2 * count) == ()
    values = [line for line in text.splitlines() if re.match(r"\w+ = ", line)]
    assert [line for line in values if "  # " not in line] == ['name = "shelf"']
    assert recipe.train.batch_size <= max(16, 6 * count) / 4


def test_it_is_accepted_as_it_stands_and_never_overwritten(tmp_path: Path) -> None:
    save(tmp_path / "my shelf", {"train": (12, 12), "test": (6, 6)}, ((12, 12),), "L")
    ended = run_command(["init", "my shelf"], cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    path = tmp_path / "my-shelf.toml"
    assert ended.out.endswith("wrote my-shelf.toml: ecd-deploy inspect my-shelf.toml\n")
    rehearsed = run_command(["rehearse", path.name], cwd=tmp_path)
    assert (rehearsed.code, rehearsed.err) == (0, "")
    assert "warning" not in rehearsed.out
    path.write_text("mine")
    again = run_command(["init", "my shelf"], cwd=tmp_path)
    assert (again.code, again.out) == (2, "")
    assert again.err == "Error: my-shelf.toml is there already: choose another --out, or add --force to replace it\n"
    assert path.read_text() == "mine"
    assert run_command(["init", "my shelf", "--force"], cwd=tmp_path).code == 0
    assert path.read_text() != "mine"
    assert run_command(["init", "my shelf", "--out", "my shelf", "--force"], cwd=tmp_path).code == 2


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({}, "there is no folder shelf"),
        ({"readme.txt": b""}, "shelf has no class folders: put the images at shelf/<class>/<image>"),
        ({"a/1.png": b"", "b/1.png": b""}, "shelf: class a has one image only, and one each to train on and to test"),
        ({"train/a/1.png": b"", "train/b/1.png": b""}, "shelf has neither test/ nor val/"),
        ({"train/a/1.png": b"", "test/a/1.png": b""}, "train has one class only, a"),
        (
            {"train/a/1.png": b"", "train/b/1.png": b"", "test/a/1.png": b"", "test/c/1.png": b""},
            "the classes below shelf differ; only in train/: b; only in test/: c",
        ),
        (
            {f"{split}/{name}/1.png": b"no image" for split in ("train", "test") for name in "ab"},
            "none of the files below shelf/train that were looked at is an image",
        ),
    ],
    ids=["absent", "empty", "one image", "no test", "one class", "other classes", "no image"],
)
def test_a_folder_that_is_no_data_set_is_refused_in_one_line(
    tmp_path: Path, made: dict[str, bytes], message: str
) -> None:
    for name, content in made.items():
        path = tmp_path / "shelf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    ended = run_command(["init", "shelf"], cwd=tmp_path)
    assert (ended.code, ended.out) == (4, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "shelf.toml").exists()


def test_a_folder_of_classes_alone_is_split_by_a_table(tmp_path: Path) -> None:
    save(tmp_path, {"shelf": (20, 7, 2)}, ((12, 12),), "L")
    ended = run_command(["init", "shelf", "--out", "recipes/first.toml"], cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert "wrote recipes/first.toml and recipes/first.csv: ecd-deploy inspect recipes/first.toml\n" in ended.out
    recipe = load_recipe(tmp_path / "recipes/first.toml")
    assert (recipe.data.source, recipe.data.path) == ("csv", "recipes/first.csv")
    table = read_csv(tmp_path / "recipes/first.csv")
    assert all(file.is_file() for file in table.files())
    found = Counter(zip(table.labels, table.columns["split"], strict=True))
    assert [(found[f"class {number}", "train"], found[f"class {number}", "test"]) for number in range(3)] == [
        (16, 4),
        (6, 1),
        (1, 1),
    ]
    again = run_command(["init", "shelf", "--out", "recipes/first.csv"], cwd=tmp_path)
    assert (again.code, again.err) == (2, "Error: --out recipes/first.csv: a recipe's name ends with .toml\n")
    (tmp_path / "recipes/first.toml").unlink()
    assert run_command(["init", "shelf", "--out", "recipes/first.toml"], cwd=tmp_path).code == 2
    assert not (tmp_path / "recipes/first.toml").exists()  # the table is there: neither is written


@pytest.mark.slow
def test_a_recipe_from_pretrained_weights_is_accepted_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    url = models.ResNet18_Weights.DEFAULT.url
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(models.resnet18().state_dict(), cache / url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    root = save(tmp_path / "photos", {"train": (20, 12), "test": (6, 6)}, ((180, 200), (220, 170)))
    recipe = parse_recipe(first_recipe(look_at(root), Path("photos.toml")), "text")
    assert recipe.student.weights == "pretrained"
    assert recipe.method.teacher_init == "student"
    assert "split proof" in ecd_deploy.rehearse(recipe).words()
