from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ecd_deploy.data import Batch, load_data
from ecd_deploy.errors import RecipeError, StudentError, UsageError
from ecd_deploy.pipelines.inspect.inspection import inspect_student
from ecd_deploy.pipelines.inspect.subject import Subject, read_subject
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.recipe import load_recipe
from tests.small import present

KERNELS = {"--kernels": ("method.kernels", "8")}
STAGES = {"--stages": ("method.stages", "[2, 4]")}


def read(
    name: str, *changes: str, options: dict[str, tuple[str, str]] | None = None, in_channels: int | None = None
) -> Subject:
    return read_subject(name, overrides=changes, options=options or {}, in_channels=in_channels)


def folder_recipe(root: Path, lines: str, method: str = "") -> str:
    for name in ("cat", "dog", "fox", ".hidden"):
        (root / "images" / "train" / name).mkdir(parents=True)
    path = root / "mine.toml"
    path.write_text(
        f'name = "mine"\n[data]\nsource = "imagefolder"\npath = "{root}/images"\n{lines}\n'
        f'[student]\nname = "resnet8"\n[method]\n{method}\n'
    )
    return str(path)


def test_a_student_by_its_name_has_the_defaults_of_a_recipe() -> None:
    assert read("resnet20") == Subject(student="resnet20", any_stages=True)
    assert read("resnet20", options=KERNELS).method == MethodConfig(kernels=8)


def test_a_recipe_says_what_is_built() -> None:
    recipe = load_recipe("digits", ("method.stages=[2, 4]",))
    found = read("digits", options=STAGES)
    assert found.method == recipe.method
    assert (found.batch_size, found.recipe, found.any_stages) == (recipe.train.batch_size, recipe, False)
    assert (
        read("cifar100-resnet20", "data.image_size=64", "data.source=cifar10", "student.num_classes=10").classes == 10
    )


def test_the_images_of_a_recipe_are_known_without_reading_them() -> None:
    found = read("digits")
    data = load_data(DataConfig(source="digits"), seed=0)
    assert (found.in_channels, found.image_size, found.image_size) == tuple(data.train.images.shape[1:])
    assert found.classes == len(data.classes)


def test_the_classes_of_a_folder_are_counted(tmp_path: Path) -> None:
    path = folder_recipe(tmp_path, "image_size = 24\nmean = [0.5]\nstd = [0.5]")
    found = read(path)
    assert (found.classes, found.in_channels, found.image_size) == (3, 1, 24)
    assert present(found.recipe).name == "mine"
    with pytest.raises(RecipeError, match="num_classes is 4, but the data have 3 classes"):
        read(path, "student.num_classes=4")


def test_what_only_the_images_tell_is_asked_for(tmp_path: Path) -> None:
    path = folder_recipe(tmp_path, "")
    with pytest.raises(RecipeError, match=r"data.image_size is not set.*set it with --image-size"):
        read(path)
    with pytest.raises(RecipeError, match="no folder absent/train to count classes in; set it with --classes"):
        read(path, "data.path=absent", "data.image_size=8")
    with pytest.raises(RecipeError, match=r"data.source 'hub:us/pets' is not opened here; set it with --classes"):
        read(path, "data.source=hub:us/pets", "data.image_size=8")
    assert read(path, "data.image_size=8", in_channels=1).in_channels == 1


@pytest.mark.parametrize(
    ("name", "changes", "options", "message"),
    [
        ("resnet8", ["method.kernels=4"], KERNELS, "--kernels 8 and --set method.kernels=4 both set method"),
        ("digits", ["method={stages = [2]}"], STAGES, "--stages 2,4 and --set method={stages = .2.} both set"),
        ("resnet8", ['method.sites=["layer1.*"]'], STAGES, r'--stages has no effect: method.sites is \["layer1.\*"\]'),
        ("resnet8", ["train.epochs=4"], {}, "--set train.epochs=4 has no effect.*method.*, data.image_size"),
        ("resnet8", ["student.name=resnet20"], {}, "student.name=resnet20 has no effect"),
        ("resnet8", ["train.epocs=4"], {}, "did you mean 'epochs'"),
        ("resnet8", ["method.name=distil"], {}, "name 'distil' needs .method.pretrained. with run and losses"),
        ("resnet8", ["method.kernels"], {}, "--set method.kernels: expected key.path=value"),
        ("absent.toml", [], {}, "no recipe 'absent.toml'"),
    ],
)
def test_contradictions_are_named(
    name: str, changes: list[str], options: dict[str, tuple[str, str]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read(name, *changes, options=options)


def test_stages_and_sites_both_count_where_blocks_are_compared() -> None:
    found = read("resnet8", 'method.sites=["layer1.*"]', "method.features=block", options=STAGES)
    assert found.method.stages == (2, 4)


def test_parts_of_a_batch_are_those_of_training() -> None:
    def largest(batch_size: int, parts: int) -> tuple[int, int]:
        subject = Subject(student="resnet8", batch_size=batch_size, parts=parts)
        images = torch.zeros(batch_size, 1)
        cut = Batch(images, images[:, 0], images[:, 0], batch_size).split(parts)
        assert subject.used_parts == len(cut)
        assert subject.images_at_one_time == max(map(len, cut))
        return subject.used_parts, subject.images_at_one_time

    assert largest(100, 3) == (3, 34)
    assert largest(3, 3) == (1, 3)
    assert largest(128, 1) == (1, 128)


def test_other_channels_than_those_of_the_data_are_refused() -> None:
    with pytest.raises(UsageError, match="--in-channels 3: the images of recipe 'digits' have 1"):
        read("digits", in_channels=3)


def test_a_name_that_is_neither_student_nor_recipe() -> None:
    with pytest.raises(StudentError, match=r"no student 'cifar100-resnet2'.*to inspect a recipe, give.*digits"):
        inspect_student(read("cifar100-resnet2"))
