from __future__ import annotations

import json
import math

import pytest

from ecd_deploy.errors import RecipeError
from ecd_deploy.pipelines.record.recipe_file import recipe_to_toml
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.recipe import BUILTIN_RECIPES, Recipe, load_recipe, parse_recipe
from ecd_deploy.recipe.student import StudentConfig
from ecd_deploy.recipe.train import TrainConfig

MINIMAL = """
name = "mine"
[data]
source = "digits"
[student]
name = "resnet8"
"""


def test_cifar100_recipe_is_the_papers() -> None:
    recipe = load_recipe("cifar100-resnet20")
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.learning_rate) == (200, 128, 0.1)
    assert (recipe.train.schedule, recipe.train.milestones, recipe.train.decay) == ("multistep", (100, 150), 0.1)
    assert recipe.train.weight_decay == 5e-4
    assert (recipe.method.kernels, recipe.method.connection, recipe.method.stages) == (16, "conv1x1", (2, 3))
    assert recipe.student.name == "resnet20"


@pytest.mark.parametrize(
    "value", ["[" * 10_000, "[" * 10_000 + "]" * 10_000, "{a=" * 10_000, "9" * 5_000, "0x" + "f" * 9_000]
)
def test_values_that_no_recipe_needs_are_refused_in_one_line(value: str) -> None:
    for text, overrides in ((f"x = {value}", ()), (MINIMAL, (f"data.path={value}",))):
        with pytest.raises(RecipeError) as caught:
            parse_recipe(text, "mine.toml", overrides)
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)


def test_a_key_of_thousands_of_parts_is_refused_in_one_line() -> None:
    with pytest.raises(RecipeError, match="nested too deeply") as caught:
        load_recipe("digits", (".".join("a" * 5_000) + "=1",))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", BUILTIN_RECIPES.names())
def test_builtin_recipes_are_named_after_their_file(name: str) -> None:
    assert load_recipe(name).name == name
    assert load_recipe(name).description


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epocs=3", ["train.epocs", "did you mean 'epochs'", "batch_size"]),
        ("tran.epochs=3", ["tran", "did you mean 'train'"]),
        ("train.epochs=0", ["train.epochs", "greater than or equal to 1", "0"]),
        ("train.epochs=1.5", ["train.epochs", "1.5"]),
        ("train.epochs='3'", ["train.epochs", "valid integer"]),
        ("train.learning_rate=nan", ["train.learning_rate", "finite"]),
        ("train.learning_rate=inf", ["train.learning_rate", "finite"]),
        ("gate.min_top1=nan", ["gate.min_top1", "finite"]),
        ("gate.min_top1=97", ["gate.min_top1", "97"]),
        ("method.connection=conv3x3", ["method.connection", "'direct', 'conv1x1' or 'conv1x1_bn'", "conv3x3"]),
        ("method.stages=[2,2]", ["method", "twice"]),
        ("train.milestones=[150,100]", ["train", "rise strictly"]),
        ("data.source=imagefolder", ["data", "needs path"]),
        ("data.mean=[0.5]", ["data", "mean and std"]),
        ("data.loading=files", ["data", "needs source 'imagefolder'", "'digits'", "'cache'"]),
        ("data.loading=disk", ["data.loading", "'cache' or 'files'", "disk"]),
        ("data.random_resized_crop=[0.1,1.0]", ["data", "random_resized_crop needs loading 'files'"]),
        ("train.cuda_graph=always", ["train.cuda_graph", "'auto', 'fused' or 'never'", "always"]),
        ("train.cuda_graph=false", ["train.cuda_graph", "'auto', 'fused' or 'never'", "False"]),
        ("train.cuda_grap=never", ["train.cuda_grap", "did you mean 'cuda_graph'"]),
        ("train.class_weights=inverse", ["train.class_weights", "'balanced', 'effective', or a table", "inverse"]),
        ("train.class_weights=[1.0, 2.0]", ["train.class_weights", "a table of weights by class name"]),
        ("train.class_weights={3 = 0.0}", ["train.class_weights", 'class "3" is 0.0, and must be a number above 0']),
        ("train.class_weights={3 = -1}", ["train.class_weights", 'class "3" is -1']),
        ("train.class_weights={3 = nan}", ["train.class_weights", 'class "3" is nan']),
        ("train.class_weights={3 = 'much'}", ["train.class_weights", "class \"3\" is 'much'"]),
        ("train.effective_beta=0.9", ["train", "effective_beta 0.9 has no effect: class_weights is not 'effective'"]),
        ("train.sampling=even", ["train.sampling", "'shuffle' or 'balanced'", "even"]),
        ("train.logit_adjustment=-1.0", ["train.logit_adjustment", "greater than 0", "-1"]),
        ("train.logit_adjustment=nan", ["train.logit_adjustment", "finite"]),
        ("train.select=worst", ["train.select", "'best', 'balanced_accuracy' or 'last'", "worst"]),
        ("data.workers=-1", ["data.workers", "greater than or equal to 0"]),
        ("export.formats=['safetensors']", ["export", "'onnx'"]),
        ("profile.max_seconds=1.0", ["profile", "min_seconds"]),
        ("train.epochs", ["key.path=value"]),
        ("name.x=1", ["'name' is a value"]),
    ],
)
def test_refuses_naming_the_key_and_the_choices(override: str, expected: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", (override,))
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ("train.class_weights=balanced", "train.sampling=balanced"),
            "class_weights 'balanced' and sampling 'balanced'",
        ),
        (("train.logit_adjustment=1.0", "train.sampling=balanced"), "sampling 'balanced' and logit_adjustment 1.0"),
        (("train.class_weights=effective", "train.logit_adjustment=1"), "'effective' and logit_adjustment 1.0"),
        (
            ("data.validation_fraction=0", "train.select=balanced_accuracy"),
            "train.select is 'balanced_accuracy', and data.validation_fraction 0 leaves no images to choose an",
        ),
        (
            ("train.sampling=balanced", "method.name=distil", 'method.pretrained={run = "x", losses = ["crd"]}'),
            "train.sampling 'balanced' repeats images, and method.pretrained.losses 'crd' needs",
        ),
    ],
)
def test_choices_about_unequal_classes_that_contradict_each_other_are_refused(
    overrides: tuple[str, ...], told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", overrides)
    assert told in str(caught.value)


def test_weights_by_class_are_written_and_read_back() -> None:
    recipe = load_recipe("digits", ('train.class_weights={"a b.c" = 2, "ü" = 0.5}',))
    assert parse_recipe(recipe_to_toml(recipe), "written") == recipe
    assert recipe.train.class_weights == {"a b.c": 2.0, "ü": 0.5}


def test_duplicate_key_is_refused_with_its_place() -> None:
    with pytest.raises(RecipeError, match=r"mine\.toml is not valid TOML.*line 3"):
        parse_recipe('name = "a"\nseed = 1\nseed = 2\n', "mine.toml")


def test_missing_key_is_named() -> None:
    with pytest.raises(RecipeError, match=r"student: is missing"):
        parse_recipe('name = "a"\n[data]\nsource = "digits"\n', "mine.toml")


def test_unknown_recipe_lists_the_built_in_ones() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'digits'.*built-in names are cifar100-resnet20, digits"):
        load_recipe("digit")


def test_overrides_are_toml_values_or_bare_strings() -> None:
    recipe = load_recipe("digits", ("train.epochs=3", "student.name=resnet20", "method.stages=[4]", "data.path=/a b"))
    assert recipe.train.epochs == 3
    assert recipe.student.name == "resnet20"
    assert recipe.method.stages == (4,)
    assert recipe.data.path == "/a b"


def test_digest_is_of_the_values_not_of_the_writing() -> None:
    spaced = MINIMAL.replace(" = ", "=").replace('name="mine"', '# a comment\nname="mine"')
    assert parse_recipe(MINIMAL, "a").digest() == parse_recipe(spaced, "b").digest()
    assert parse_recipe(MINIMAL, "a").digest() != parse_recipe(MINIMAL, "a", ("seed=1",)).digest()


FILES = ("data.source=imagefolder", "data.path=images", "data.loading=files", "data.image_size=8")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (FILES[:-1], "needs image_size"),
        ((*FILES, "data.random_resized_crop=[0.5,0.1]"), "must rise and end at 1"),
        ((*FILES, "data.random_resized_crop=[0.1,1.5]"), "must rise and end at 1"),
        ((*FILES, "data.random_resized_crop=[0.0,1.0]"), "greater than 0"),
        ((*FILES, "data.random_resized_crop=[0.1,1.0]", "data.crop_padding=1"), "set one of them"),
    ],
)
def test_loading_files_has_its_own_needs(overrides: tuple[str, ...], expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        load_recipe("digits", ("data.crop_padding=0", *overrides))


CRD = ("method.name=distil", "method.pretrained.run=teacher", "method.pretrained.losses=['kd', 'crd']")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ("augment.policy=autoaugment",),
            r"augment\.policy: .*'none', 'randaugment' or 'trivialaugment' .*autoaugment",
        ),
        (("augment.policy=trivialaugment", "augment.magnitude=5"), "magnitude 5 has no effect.*not 'trivialaugment'"),
        (("augment.operations=3",), "operations 3 has no effect: it is of policy 'randaugment', not 'none'"),
        (
            ("augment.policy=randaugment", "augment.magnitude=31"),
            "augment: magnitude 31 is too large: it goes from 0 to 30",
        ),
        (("augment.hue=0.6",), r"augment\.hue: .*less than or equal to 0\.5 .*0\.6"),
        (("augment.mixup=0.0",), r"augment\.mixup: .*greater than 0 .*0\.0"),
        (("augment.mix_up=0.2",), r"augment\.mix_up.*did you mean 'mixup'"),
        ((*CRD, "augment.mixup=0.2"), r"augment\.mixup 0\.2 .*'crd' of method\.pretrained\.losses.*remove one"),
        ((*CRD, "augment.cutmix=1.0"), r"augment\.cutmix 1\.0 .*'crd' of method\.pretrained\.losses.*remove one"),
    ],
)
def test_augmentation_that_cannot_be_is_refused_by_key_value_and_choices(
    overrides: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(RecipeError, match=expected):
        load_recipe("digits", overrides)


def test_what_loading_files_needs_is_part_of_the_digest_and_survives_the_way_through_a_file() -> None:
    fewer, more = (parse_recipe(MINIMAL, "a", (*FILES, f"data.workers={workers}")) for workers in (1, 2))
    assert fewer.digest() != more.digest()
    assert parse_recipe(recipe_to_toml(more), "b") == more


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("data.resize=10",), "data: resize 10 needs image_size"),
        (("data.resize=7", "data.image_size=8"), "data: resize 7 is below image_size 8"),
        (("data.resize=0", "data.image_size=8"), r"data\.resize.*: .*greater than or equal to 1"),
        (("data.resize=8", "data.image_size=[8, 12]"), r"data: resize 8 is below image_size 8 x 12"),
        (("data.resize=[9, 11]", "data.image_size=[8, 12]"), r"data: resize 9 x 11 is below image_size 8 x 12"),
        (("data.image_size=[8]",), r"data\.image_size"),
        (("data.image_size=8x12",), r"data\.image_size"),
    ],
)
def test_a_resize_needs_a_middle_that_fits(overrides: tuple[str, ...], expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        load_recipe("digits", overrides)


def test_a_size_has_two_sides_or_one_for_both() -> None:
    square, written, other = (
        parse_recipe(MINIMAL, "a", (f"data.image_size={size}",)) for size in (8, "[8, 8]", "[8, 9]")
    )
    assert square.data.image_size == written.data.image_size == 8
    assert square.digest() == written.digest() != other.digest()
    assert other.data.image_size == other.data.scaled_to_fill == (8, 9)
    assert parse_recipe(recipe_to_toml(other), "b") == other


@pytest.mark.parametrize("override", ["data.resize=8", "method.mixture=balanced"])
def test_a_choice_that_differs_from_its_default_is_part_of_the_digest_and_written(override: str) -> None:
    plain, changed = (parse_recipe(MINIMAL, "a", ("data.image_size=8", *more)) for more in ((), (override,)))
    assert changed.digest() != plain.digest()
    assert parse_recipe(recipe_to_toml(changed), "b") == changed


def test_training_on_every_image_needs_the_last_weights_and_no_watch_over_quantisation() -> None:
    with pytest.raises(
        RecipeError, match=r"train\.select is 'best', and data\.validation_fraction 0 .* set train\.select"
    ):
        load_recipe("digits", ("data.validation_fraction=0", "train.select=best"))
    everything = ("data.validation_fraction=0", "train.select=last")
    with pytest.raises(RecipeError, match=r"export\.int8\.max_drop 0\.02 .*data\.validation_fraction 0"):
        load_recipe("digits", (*everything, "export.int8.max_drop=0.02"))
    recipe = load_recipe("digits", everything)
    assert recipe.data.validation_fraction == 0
    assert parse_recipe(recipe_to_toml(recipe), "b") == recipe
    with pytest.raises(RecipeError, match=r"data\.validation_fraction: .*greater than or equal to 0"):
        load_recipe("digits", ("data.validation_fraction=-0.1",))


def test_whether_a_folder_has_validation_images_is_left_to_the_run() -> None:
    folder = ("data.source=imagefolder", "data.path=images", "data.validation_fraction=0")
    for need in ("train.select=best", "export.int8.max_drop=0.02"):
        assert load_recipe("digits", (*folder, "train.select=last", need)).need_of_validation is not None
    assert load_recipe("digits", (*folder, "train.select=last")).need_of_validation is None


def test_the_share_of_test_images_that_are_trained_on_is_a_fraction() -> None:
    recipe = parse_recipe(MINIMAL, "a")
    changed = parse_recipe(MINIMAL, "a", ("data.max_test_overlap=0.5",))
    assert changed.digest() != recipe.digest()
    assert parse_recipe(recipe_to_toml(changed), "b") == changed
    with pytest.raises(RecipeError, match=r"data\.max_test_overlap"):
        load_recipe("digits", ("data.max_test_overlap=1.5",))


def test_schema_names_every_section() -> None:
    schema = json.dumps(Recipe.model_json_schema())
    for section in ("data", "student", "method", "train", "export", "profile", "gate"):
        assert f'"{section}"' in schema


def test_integers_are_accepted_where_a_number_is_wanted() -> None:
    assert math.isclose(load_recipe("digits", ("train.learning_rate=1",)).train.learning_rate, 1.0)


def test_a_recipe_made_in_python_is_the_one_of_its_document() -> None:
    made = Recipe(
        name="x",
        data=DataConfig(source="digits"),
        student=StudentConfig(name="torchvision:resnet18", weights="pretrained"),
        train=TrainConfig(epochs=3),
    )
    text = """
name = "x"
data = { source = "digits" }
student = { name = "torchvision:resnet18", weights = "pretrained" }
train = { epochs = 3 }
"""
    assert made == parse_recipe(text, "text")
    assert made.method.teacher_init == "student"
    fresh = MethodConfig(teacher_init="fresh")
    assert Recipe(name="x", data=made.data, student=made.student, method=fresh).method == fresh


def test_values_that_cannot_be_used_are_told_in_python_as_in_a_document() -> None:
    with pytest.raises(RecipeError) as refused:
        DataConfig(source="digit", crop_paddin=1)  # type: ignore[call-arg]
    first, source, padding = str(refused.value).splitlines()
    assert first == "this DataConfig cannot be used:"
    assert source == (
        "  source: there is no such source (did you mean 'digits'?); there are digits, cifar10, cifar100, imagefolder, "
        "csv, parquet, datasets, torchvision:NAME, hub:OWNER/NAME (it is 'digit')"
    )
    assert padding.startswith("  crop_paddin: unknown key (did you mean 'crop_padding'?); known keys are source, path,")
    with pytest.raises(RecipeError, match=r"this Recipe cannot be used:\n  the document: teacher_init 'student'"):
        Recipe(
            name="x",
            data=DataConfig(source="digits"),
            student=StudentConfig(name="timm:x", weights="pretrained"),
            method=MethodConfig(connection="conv1x1_bn"),
        )
