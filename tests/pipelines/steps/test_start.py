"""Where a student starts from: a run, a file, and the libraries' own weights from their caches; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from torch import nn

from ecd_deploy.data import DataSplits
from ecd_deploy.errors import ArtefactError, RecipeError, RunDirectoryError, StudentError
from ecd_deploy.models import build_student
from ecd_deploy.models.weights import StartWeights
from ecd_deploy.pipelines.explain.networks import networks_of
from ecd_deploy.pipelines.record.run_directory import read_run
from ecd_deploy.pipelines.run import run_train
from ecd_deploy.pipelines.steps.data import recorded_data
from ecd_deploy.pipelines.steps.start import load_training_data, open_weights, start_student
from ecd_deploy.pipelines.steps.train import training_model
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from ecd_deploy.training import load_weights
from ecd_deploy.training.steps.optimizer import build_optimizer
from tests.commands import run_command
from tests.training.helpers import same_state

TINY = (
    *("data.train_limit=100", "data.test_limit=40", "train.epochs=2", "train.batch_size=32", "train.trackers=[]"),
    *("method.kernels=2", "train.learning_rate=0.01", "gate.min_top1=0.0", "gate.max_drop=1.0"),
    *("profile.min_seconds=0.05", "profile.warmup_seconds=0.0", "profile.min_samples=44", "profile.max_seconds=1.0"),
)
GIVEN = ("data.mean=[0.3]", "data.std=[0.4]")


def recipe(*overrides: str) -> Recipe:
    return load_recipe("digits", (*TINY, *overrides))


def words(*overrides: str) -> list[str]:
    return [word for value in (*TINY, *overrides) for word in ("--set", value)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-8 for seven classes, in half precision and without counters, as files of other programs may be."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("files") / "other.safetensors"
    state = build_student("resnet8", num_classes=7, in_channels=1).state_dict()
    safetensors.torch.save_file(
        {name: value.half() for name, value in state.items() if value.is_floating_point()}, path
    )
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs")
    ended = run_command(
        ["run", "digits", "--out", "source", "--no-rehearsal", *words("data.mean=[0.25]", "data.std=[0.5]")], cwd=folder
    )
    assert ended.code in {0, 3}, ended.err
    return folder / "source"


@pytest.fixture(scope="module")
def data() -> DataSplits:
    return load_training_data(recipe())


def test_a_run_goes_on_from_a_run_to_the_report(source: Path, tmp_path: Path) -> None:
    """With what an ECD needs of it: mean and std, the proof by construction, the gate."""
    settings = (f"student.weights={source}", "student.head=keep")
    ended = run_command(["run", "digits", "--out", "next", *words(*settings)], cwd=tmp_path)
    assert ended.code in {0, 3}, ended.err
    start = json.loads((tmp_path / "next" / "start.json").read_text())
    assert (start["mean"], start["std"]) == ([0.25], [0.5])
    directory = read_run(tmp_path / "next")
    assert "start.json" in directory.manifest.entry("training.json").parents
    said = f"| starts from | the run source, tensors with SHA-256 `{start['digest']}` |"
    assert said in (tmp_path / "next" / "MODEL_CARD.md").read_text()
    assert "| starts from | fresh weights |" in (source / "MODEL_CARD.md").read_text()
    bill = (tmp_path / "next" / "bom.cdx.json").read_text()
    (ancestor,) = json.loads(bill)["metadata"]["component"]["pedigree"]["ancestors"]
    assert (ancestor["name"], ancestor["hashes"][0]["content"]) == ("the run source", start["digest"])
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    # later steps read mean and std from the run, not from where the weights were
    assert recorded_data(directory).normalisation.mean == (0.25,)
    assert [seen.normalisation.mean for seen in networks_of(directory, with_teacher=True)] == [(0.25,), (0.25,)]
    config = recipe(*settings)
    data = load_training_data(config)
    model = training_model(config, data, open_weights(config, data))
    state = safetensors.torch.load_file(source / "split.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in model.student.state_dict().items())
    verified = run_command(["verify", "next", "--reproduce"], cwd=tmp_path)
    assert verified.code == 0, verified.out + verified.err


def test_a_head_is_replaced_or_kept(file: Path, data: DataSplits) -> None:
    config = recipe(f"student.weights={file}", *GIVEN)
    weights = open_weights(config, data)
    assert weights is not None
    student, taken = start_student(config.student, weights, data.classes, build)
    state = safetensors.torch.load_file(file)
    for name, value in student.state_dict().items():
        if name in taken and name in state:
            assert torch.equal(value, state[name].float())
    assert student.state_dict().keys() - taken == {"fc.weight", "fc.bias"}
    kept = recipe(f"student.weights={file}", "student.head=keep", *GIVEN)
    with pytest.raises(StudentError, match=r"does not fit CifarResNet:\n  fc.bias has \(7,\), the network \(10,\)\n"):
        start_student(kept.student, weights, data.classes, build)
    strange = StartWeights(origin="they", tensors=weights.tensors, classes=("a", "b"))
    with pytest.raises(StudentError, match="the classes of they are not those of the data"):
        start_student(kept.student, strange, data.classes, build)


def build(classes: int) -> nn.Module:
    return build_student("resnet8", num_classes=classes, in_channels=1)


def test_a_fresh_head_starts_with_nearly_equal_scores(file: Path, data: DataSplits) -> None:
    config = recipe(f"student.weights={file}", *GIVEN)
    weights = open_weights(config, data)
    assert weights is not None

    def wide(classes: int) -> nn.Module:
        student = build_student("resnet8", num_classes=classes, in_channels=1)
        assert isinstance(student.fc, nn.Linear)
        nn.init.normal_(student.fc.weight, std=0.5)
        nn.init.normal_(student.fc.bias, std=0.5)
        return student

    student, taken = start_student(config.student, weights, data.classes, wide)
    assert isinstance(student.fc, nn.Linear)
    assert 0.005 < student.fc.weight.std() < 0.02
    assert not student.fc.bias.any()
    assert "fc.weight" not in taken


def test_another_network_is_named_by_its_tensors(file: Path, data: DataSplits) -> None:
    weights = StartWeights(
        origin="they",
        tensors={
            **safetensors.torch.load_file(file),
            "layer1.0.conv1.weight": torch.zeros(2),
            "teacher.conv": torch.zeros(3),
            "bn1.bias": torch.full((16,), torch.nan),
        },
    )
    wider = lambda classes: build_student("resnet20", num_classes=classes, in_channels=1)  # noqa: E731
    with pytest.raises(StudentError) as caught:
        start_student(recipe(f"student.weights={file}").student, weights, data.classes, wider)
    text = str(caught.value)
    assert "student.weights: they does not fit CifarResNet:\n  layer1.1.bn1.bias is missing in them" in text
    assert text.count("\n") == 9
    with pytest.raises(StudentError) as caught:
        start_student(recipe(f"student.weights={file}").student, weights, data.classes, build)
    assert str(caught.value).splitlines()[1:] == [
        "  the network has no teacher.conv",
        "  bn1.bias is not finite",
        "  layer1.0.conv1.weight has (2,), the network (16, 16, 3, 3)",
    ]


def test_what_is_frozen_stays_and_the_rest_has_its_rate(file: Path, tmp_path: Path) -> None:
    config = recipe(
        f"student.weights={file}",
        'student.freeze=["conv1", "bn1", "layer1.*.bn1"]',
        "student.backbone_rate=0.1",
        *GIVEN,
    )
    data = load_training_data(config)
    model = training_model(config, data, open_weights(config, data))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {
        group["share"]: {names[id(parameter)] for parameter in group["params"]}
        for group in build_optimizer(model, config.train).param_groups
    }
    assert groups.keys() == {1.0, 0.1}
    assert {"student.fc.weight", "teacher.fc.bias", "teacher.layer1.0.conv1.expand.bias"} <= groups[1.0]
    slow = {f"{network}.layer1.0.conv1.weight" for network in ("student", "teacher")}
    assert slow | {"teacher.conv1.weight"} <= groups[0.1]
    assert "student.conv1.weight" not in groups[0.1] | groups[1.0]

    run_train(config, tmp_path / "run", resume=False, rehearsal=False)
    trained = training_model(config, data)
    load_weights(tmp_path / "run", "last", trained)
    before, after = model.student.state_dict(), trained.student.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    # statistics of frozen norms included
    assert same == {name for name in before if name.startswith(("conv1.", "bn1.", "layer1.0.bn1."))}


@pytest.mark.parametrize("teacher", ["se", "cbam"])
def test_a_teacher_by_attention_has_the_rate_where_it_copied_a_convolution(file: Path, teacher: str) -> None:
    config = recipe(f"student.weights={file}", f"method.teacher={teacher}", "student.backbone_rate=0.1", *GIVEN)
    data = load_training_data(config)
    rates = training_model(config, data, open_weights(config, data)).rates
    for owner in ("student.layer1.0.conv1", "teacher.layer1.0.conv1.convolution", "teacher.conv1"):
        assert rates[f"{owner}.weight"] == 0.1
    assert "teacher.layer1.0.conv1.channels.expand.weight" not in rates
    fresh = recipe(
        *(f"student.weights={file}", f"method.teacher={teacher}", "student.backbone_rate=0.1"),
        *("method.teacher_init=fresh", *GIVEN),
    )
    rates = training_model(fresh, data, open_weights(fresh, data)).rates
    assert rates
    assert all(name.startswith("student.") for name in rates)


def test_a_resume_with_other_weights_is_refused(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    path.write_bytes(file.read_bytes())
    config = recipe(f"student.weights={path}", *GIVEN)
    whole = tmp_path / "whole"
    run_train(config, whole, resume=False, rehearsal=False)
    digest = json.loads((whole / "start.json").read_text())["digest"]
    state = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**state, "bn1.bias": state["bn1.bias"] + 1}, path)
    with pytest.raises(RunDirectoryError, match=rf"started from {path} with digest {digest}, now it is"):
        run_train(config, whole, resume=True)
    assert json.loads((whole / "start.json").read_text())["digest"] == digest


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("absent.safetensors", RecipeError, "'absent.safetensors' is neither 'pretrained', a .safetensors file nor"),
        ("damaged.safetensors", ArtefactError, "damaged.safetensors is no safetensors file"),
        ("other.safetensors", RecipeError, "does not say with which mean and std it was trained: set data.mean and"),
        ("folder", RunDirectoryError, "student.weights: folder is not a run directory"),
    ],
)
def test_what_are_no_weights_is_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("damaged.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    Path("other.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(error, match=message):
        load_training_data(recipe(f"student.weights={weights}"))


def test_patterns_that_freeze_nothing_or_everything_are_refused(file: Path, data: DataSplits) -> None:
    for pattern, message in (
        ("layer9", "'layer9' matches no parameter of the student and no module that holds one; its modules are conv1,"),
        ("**", "every parameter of the student is frozen"),
    ):
        config = recipe(f"student.weights={file}", f'student.freeze=["{pattern}"]')
        weights = open_weights(config, data)
        assert weights is not None
        with pytest.raises(StudentError, match=message):
            start_student(config.student, weights, data.classes, build)


def test_torchvision_s_weights_come_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torchvision's and torch.hub's own code, from a file where they look for it."""
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(3)
    published = models.squeezenet1_1()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(published.state_dict(), folder / Path(models.SqueezeNet1_1_Weights.DEFAULT.url).name)
    config, images = colour("torchvision:squeezenet1_1")
    weights = open_weights(config, images)
    assert weights is not None
    assert weights.origin == "torchvision squeezenet1_1 IMAGENET1K_V1"
    assert (weights.mean, weights.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    student, taken = start_student(
        config.student, weights, images.classes, lambda classes: build_student(config.student.name, num_classes=classes)
    )
    expected = published.state_dict()
    assert all(torch.equal(student.state_dict()[name], expected[name]) for name in taken)
    assert expected.keys() - taken == {"classifier.1.weight", "classifier.1.bias"}


def test_weights_that_cannot_be_had_are_told_with_their_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    config, images = colour("torchvision:squeezenet1_1")
    file = rf"https://download\.pytorch\.org/models/squeezenet1_1-\w+\.pth into {tmp_path}/hub/checkpoints,"
    with pytest.raises(StudentError, match=rf"of 'torchvision:squeezenet1_1' cannot be had: .*, put {file}"):
        open_weights(config, images)


@pytest.mark.slow
@pytest.mark.needs("timm")
def test_timm_s_weights_come_from_the_hub_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By timm's and the Hugging Face hub's own code; in a process of its own, since the hub reads its folder once."""
    import timm

    torch.manual_seed(3)
    published = timm.create_model("test_resnet")
    config = vars(published)["pretrained_cfg"]
    commit = "0" * 40
    cache = tmp_path / "hub" / f"models--{config['hf_hub_id'].replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    (cache / "snapshots" / commit).mkdir(parents=True)
    safetensors.torch.save_file(published.state_dict(), cache / "snapshots" / commit / "model.safetensors")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = (
        "student.name=timm:test_resnet",
        "student.weights=pretrained",
        "method.stages=[2]",
        "data.image_size=32",
    )
    ended = run_command(["train", "run", "--recipe", "digits", *words(*settings)], cwd=tmp_path, fresh=True)
    assert ended.code == 0, ended.err
    start = json.loads((tmp_path / "run" / "start.json").read_text())
    assert start["origin"] == f"timm test_resnet.{config['tag']}"
    assert start["mean"] == [sum(config["mean"]) / 3]


def colour(name: str) -> tuple[Recipe, DataSplits]:
    """A recipe of a student, and colour images, which digits are not."""
    images = load_training_data(recipe())
    return load_recipe("digits", (f"student.name={name}", "student.weights=pretrained")), replace(
        images, train=replace(images.train, images=images.train.images.repeat(3, axis=1))
    )


def test_the_state_is_that_of_the_weights_whatever_was_drawn_before(file: Path, data: DataSplits) -> None:
    config = recipe(f"student.weights={file}", *GIVEN)
    weights = open_weights(config, data)
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(training_model(config, data, weights))
    assert same_state(*models)


def test_a_name_that_is_none_is_told_before_its_weights_are_sought() -> None:
    config, images = colour("torchvision:resnet19")
    with pytest.raises(StudentError, match=r"has no classifier 'resnet19' \(did you mean 'resnet18'\?\); choices are"):
        open_weights(config, images)
