from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.errors import RecipeError, StudentError, UsageError
from ecd_deploy.pipelines.rehearse.applies import check_applies
from ecd_deploy.pipelines.rehearse.rehearsal import rehearse
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from tests.commands import STUDENTS, run_command


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data(load_recipe("digits").data, seed=0)


@pytest.fixture(autouse=True)
def _students_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(STUDENTS), *sys.path])


def recipe_of(student: str, *overrides: str) -> Recipe:
    return load_recipe("digits", (f"student.name=faulty:{student}", "method.stages=[2]", *overrides))


def refusal(student: str, data: DataSplits, *overrides: str) -> str:
    with pytest.raises(StudentError) as caught:
        rehearse(recipe_of(student, *overrides), data)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore")  # of torch, for what the student does
@pytest.mark.parametrize(
    ("student", "named", "says"),
    [
        ("statistics_of_the_batch", "blocks.0.norm1", "depend on the other images of its batch: alone"),
        ("mean_of_the_batch", "middle", "depend on the other images of its batch: alone"),
        ("hidden_behind_zeros", "middle", "depend on the other images of its batch: alone"),
        ("branch_on_the_batch_size", "middle", "depend on the other images of its batch: alone"),
        ("branch_on_a_large_batch", "middle", "depend on the other images of its batch: in a batch of 16"),
        ("deviation_of_the_batch", "own forward (Net)", "depend on the other images of its batch: alone they are not"),
        ("attention_over_the_batch", "middle", "depend on the other images of its batch: they have a gradient by them"),
        ("random_in_evaluation", "middle", "vary by themselves in evaluation mode"),
        ("counts_its_calls", "middle", "a call in evaluation mode changes 'calls'"),
        ("writes_a_buffer", "middle", "keeps state in evaluation mode"),
        ("caches", "middle", "a call in evaluation mode changes 'cache'"),
        ("counts_in_an_array", "middle", "a call in evaluation mode changes 'calls'"),
        ("counts_in_an_object", "middle", "a call in evaluation mode changes 'tally'"),
        ("registers_when_called", "middle", "a call in evaluation mode changes 'grid'"),
        ("hooks_a_gradient", "stem.weight", "a hook of its own, on the gradient"),
        ("scripted", "student", "is a TorchScript program"),
        ("locks", "stem", "cannot be copied, for 'lock'"),
        ("hooks_itself", "student.blocks.0", "a hook of its own"),
        ("lazy", "head", "is not initialised, and 1 more"),
        ("on_the_meta_device", "stem", "is on the meta device"),
        ("double", "stem", "is float64"),
        ("brain_float", "stem", "is bfloat16"),
        ("frozen", "student", "no parameter of the student is trainable"),
        ("unused_layer", "spare", 'student.unused = ["spare"]'),
        ("layer_in_a_closure", "middle", "that is no registered parameter"),
        ("layer_in_an_attribute", "middle", "that is no registered parameter"),
        ("rows_lost", "student", "into (32, 10) instead of logits (8, 10): it loses the batch size"),
        ("squeezed", "student", "gives (10,) for an image alone instead of logits (1, 10)"),
        ("not_flattened", "student", "gives (8, 10, 1, 1) instead of logits (8, 10): let it end with flatten(1)"),
        ("takes_eight_images", "student", "cannot be run on an image alone: RuntimeError: shape '[8, 10]' is invalid"),
        ("detached_inside", "middle", "without a gradient: it is lost in"),
        ("leaves_torch", "middle", "without a gradient: it is lost in"),
        ("checkpointed_reentrantly", "use_reentrant=False", "the gradient of the logits by the images cannot be"),
        ("ten_and_one", "student", "11 logits, and the data have 10 classes"),
        ("no_gradient", "own forward (Net)", "have no gradient"),
        ("detached_block", "own forward (Output)", "have no gradient"),
        ("in_inference_mode", "own forward (Inference)", "have no gradient"),
        ("gives_a_dict", "student", "returns a dict with 'logits'"),
        ("gives_a_tuple", "student", "returns a tuple of 2"),
        ("gives_a_dataclass", "student", "returns a Classified with 'logits'"),
        ("made_for_other_images", "student", "must fit the images of the recipe (data.image_size)"),
        ("half_inside", "middle", "in bfloat16 by itself"),
    ],
)
def test_a_fault_is_told_in_one_line_that_names_the_module(
    digits: DataSplits, student: str, named: str, says: str
) -> None:
    text = refusal(student, digits)
    assert says in text
    assert named in text
    assert "\n" not in text
    assert "teacher" not in text


@pytest.mark.parametrize(
    ("student", "formats", "says", "way_out"),
    [
        (
            "lacks_an_operator",
            '["onnx"]',
            "onnx cannot hold the student: it lacks the operator aten.adaptive",
            "no run",
        ),
        ("branches_on_values", '["onnx"]', "onnx cannot hold the student: module 'middle' (Apply): a branch", "no run"),
        (
            "branches_on_values",
            '["torchscript", "onnx"]',
            "torchscript cannot hold the student: module 'middle' (Apply) looks at the values of the images",
            "leave the format out of export.formats",
        ),
    ],
)
def test_a_format_that_cannot_hold_the_student_is_named_in_two_lines(
    digits: DataSplits, student: str, formats: str, says: str, way_out: str
) -> None:
    first, second = refusal(student, digits, f"export.formats={formats}").splitlines()
    assert first.startswith(f"format {says}")
    assert way_out in second
    assert "\x1b" not in first + second


def test_every_format_of_the_recipe_is_tried_and_the_random_state_kept(digits: DataSplits) -> None:
    recipe = recipe_of("sound", 'export.formats=["safetensors", "onnx", "onnx-int8", "ort", "pt2"]')
    state = torch.get_rng_state()
    found = rehearse(recipe, digits)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.name for part in found.parts] == [
        *("recipe", "augmentation", "student", "forward", "loss and gradients", "split proof"),
        *(f"export {name}" for name in recipe.export.formats),
    ]
    assert found.seconds == pytest.approx(sum(part.seconds for part in found.parts))
    assert found.words().startswith("rehearsed faulty:sound on 8 images in ")
    assert found.warnings == ()


def test_what_is_left_out_at_random_and_what_is_checkpointed_passes(digits: DataSplits) -> None:
    for student, seed in (("leaves_out_at_random", 0), ("leaves_out_at_random", 1), ("checkpointed", 0)):
        assert rehearse(recipe_of(student, f"seed={seed}", 'export.formats=["onnx"]'), digits).parts


def test_a_processor_that_is_not_there_is_named(digits: DataSplits) -> None:
    with pytest.raises(RecipeError, match=r"profile\.cpus names 4095, which this process may not use"):
        rehearse(load_recipe("digits", ("profile.cpus=[4095]",)), digits)


def test_an_artefact_that_the_gate_could_not_decide_about_is_named() -> None:
    formats = 'export.formats=["safetensors", "onnx"]'
    with pytest.raises(RecipeError, match=r"gate\.artefact 'safetensors': .* there are recommended, all, onnx$"):
        check_applies(load_recipe("digits", ("gate.artefact=safetensors", formats)), 500)
    for artefact in ("recommended", "all", "onnx"):
        check_applies(load_recipe("digits", (f"gate.artefact={artefact}", formats)), 500)


@pytest.mark.parametrize("limit", ["gate.min_top1=0.999", "gate.max_drop=0.001"])
def test_a_limit_that_so_few_images_cannot_decide_is_warned_of(digits: DataSplits, limit: str) -> None:
    key, _, value = limit.partition("=")
    (warning,) = check_applies(load_recipe("digits", (limit,)), len(digits.test))
    assert warning.startswith(f"{key} {value} cannot be decided: with 500 test images")
    assert check_applies(load_recipe("digits"), len(digits.test)) == ()


def test_an_extra_that_is_not_installed_is_named(digits: DataSplits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"openvino cannot be written.*pip install 'ecd-deploy\[openvino\]'"):
        rehearse(load_recipe("digits", ('export.formats=["onnx", "openvino"]',)), digits)


def test_run_and_train_refuse_before_the_run_directory_is_made(tmp_path: Path) -> None:
    fault = ("--set", "student.name=faulty:statistics_of_the_batch")
    for words in (["run", "digits", "--out", "run"], ["train", "run", "--recipe", "digits"], ["rehearse", "digits"]):
        ended = run_command([*words, *fault], cwd=tmp_path)
        assert ended.code == 2
        assert ended.err.startswith("Error: the logits of an image depend on the other images of its batch")
        assert ended.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("augment.hue=0.1", "augment.hue 0.1 has no effect on grey images: remove it"),
        ("augment.saturation=0.5", "augment.saturation 0.5 has no effect on grey images: remove it"),
        ("augment.transforms=['absent:factory']", "augment.transforms 'absent:factory': module 'absent' cannot be"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(digits: DataSplits, option: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        rehearse(load_recipe("digits", (option,)), digits)
    assert str(caught.value).startswith(says)


def test_a_transform_that_fails_ends_the_command_before_the_run_directory_is_made(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def crop():\n    return lambda image: image[:, :4]\n")
    ended = run_command(
        ["train", "run", "--recipe", "digits", "--set", "augment.transforms=['mine:crop']"], cwd=tmp_path
    )
    assert ended.code == 2
    assert ended.err == (
        "Error: augment.transforms 'mine:crop' must give an image uint8 (1, 8, 8), and gave uint8 (1, 4, 8)\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["import sys\nsys.exit(0)\n", "def student(**_):\n    raise SystemExit(0)\n"])
def test_a_student_that_exits_does_not_end_the_command_with_success(tmp_path: Path, text: str) -> None:
    (tmp_path / "exiting.py").write_text(text)
    ended = run_command(["rehearse", "digits", "--set", "student.name=exiting:student"], cwd=tmp_path)
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert "called sys.exit(0)" in ended.err


def test_a_run_says_what_was_rehearsed_unless_told_not_to_and_trains_the_same(tmp_path: Path) -> None:
    words = ["train", "run", "--recipe", "digits", "--set", "data.train_limit=80", "--set", "train.warmup_epochs=0.0"]
    first = run_command([*words, "--set", "train.epochs=1"], cwd=tmp_path)
    assert first.code == 0, first.err
    assert "rehearsed resnet8 on 8 images in " in first.out
    again = run_command(["train", "run", "--resume"], cwd=tmp_path)
    assert again.code == 0, again.err
    assert "rehearsed" not in again.out
    words[1] = "other"
    without = run_command([*words, "--set", "train.epochs=1", "--no-rehearsal"], cwd=tmp_path)
    assert without.code == 0, without.err
    assert "rehearsed" not in without.out
    # the rehearsal leaves the random numbers as they were: the same weights follow
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "other")


def weights_of(run: Path) -> list[bytes]:
    found = [path.read_bytes() for path in sorted(run.rglob("*.safetensors"))]
    assert found
    return found


def test_inspect_rehearses_a_recipe_on_noise_unless_told_not_to(tmp_path: Path) -> None:
    small = ["--set", 'export.formats=["onnx"]']
    absent = ["--set", "method.pretrained.run=absent", "--set", 'method.pretrained.losses=["kd"]']
    found = run_command(
        ["inspect", "cifar100-resnet20", "--set", "student.name=resnet8", *small, *absent], cwd=tmp_path
    )
    assert found.code == 0, found.err
    assert found.out.splitlines()[-1].startswith("rehearsed resnet8 on 8 images of noise in ")
    assert "export onnx" in found.out
    assert list(tmp_path.iterdir()) == []  # neither images nor the other run are needed
    fault = ["--set", "student.name=faulty:mean_of_the_batch", "--set", "method.stages=[2]"]
    refused = run_command(["inspect", "digits", *small, *fault], cwd=tmp_path)
    assert refused.code == 2
    assert "MACs" in refused.out
    assert refused.err.startswith("Error: the logits of an image depend on the other images of its batch")
    for words in (["digits", *fault, "--no-rehearsal"], ["faulty:mean_of_the_batch"]):
        shown = run_command(["inspect", *words], cwd=tmp_path)
        assert (shown.code, "rehearsed" in shown.out) == (0, False), shown.err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "student",
    [
        pytest.param(
            "branches_in_the_graph",
            marks=pytest.mark.skipif(
                torch.__version__.startswith("2.11."), reason="torch 2.11 cannot run torch.cond under hooks"
            ),
        ),
        "asserts_values",
        "expert_by_chance",
        "forward_compiled",
    ],
)
def test_what_a_graph_can_hold_passes(digits: DataSplits, student: str) -> None:
    assert rehearse(recipe_of(student, 'export.formats=["onnx"]'), digits).parts
