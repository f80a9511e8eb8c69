from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecd_deploy.errors import ArtefactError, DataError, DigestError, RunDirectoryError
from ecd_deploy.pipelines.record.manifest import Manifest, read_manifest, write_manifest
from ecd_deploy.pipelines.record.recipe_file import recipe_to_toml
from ecd_deploy.pipelines.record.run_directory import create_run, open_run, read_run
from ecd_deploy.recipe.recipe import load_recipe, parse_recipe
from ecd_deploy.records import Record

RECIPE = load_recipe("digits")


class Note(Record):
    text: str


def test_what_is_written_is_read_back_by_another_process_of_the_run(tmp_path: Path) -> None:
    with create_run(tmp_path / "run", RECIPE, resume=False) as directory:
        directory.write_json("training.json", Note(text="hello"))
    with open_run(tmp_path / "run") as directory:
        assert directory.recipe == RECIPE
        assert directory.read_json("training.json", Note) == Note(text="hello")
        for name in directory.manifest.files:
            directory.read(name)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        directory.write("note.bin", b"abc")
        (tmp_path / "note.bin").write_bytes(b"abd")
        with pytest.raises(DigestError, match=r"note\.bin was changed"):
            directory.read("note.bin")


def test_a_changed_recipe_is_refused(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False):
        pass
    path = tmp_path / "recipe.toml"
    path.write_text(path.read_text().replace("epochs", "epochs ", 1))
    with pytest.raises(DigestError, match=r"recipe\.toml was changed"), open_run(tmp_path):
        pass


def test_an_unrecorded_file_is_refused(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        (tmp_path / "stray.bin").write_bytes(b"x")
        with pytest.raises(DigestError, match="not recorded"):
            directory.read("stray.bin")


def test_a_missing_step_is_named(tmp_path: Path) -> None:
    with (
        create_run(tmp_path, RECIPE, resume=False) as directory,
        pytest.raises(RunDirectoryError, match="ecd-deploy split"),
    ):
        directory.read_json("split.json", Note)


def test_recorded_folders_forget_what_is_gone(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "one").write_bytes(b"1")
        (tmp_path / "checkpoints" / ".two.ab.partial").write_bytes(b"2")
        directory.record_folder("checkpoints")
        assert "checkpoints/one" in directory.manifest.files
        (tmp_path / "checkpoints" / "one").rename(tmp_path / "checkpoints" / "three")
        directory.record_folder("checkpoints")
        assert [name for name in directory.manifest.files if name.startswith("checkpoints")] == ["checkpoints/three"]


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False):
        pass
    with pytest.raises(RunDirectoryError, match="--resume"), create_run(tmp_path, RECIPE, resume=False):
        pass


def test_a_users_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="not empty"), create_run(tmp_path, RECIPE, resume=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_resuming_under_another_recipe_shows_the_difference(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False):
        pass
    other = load_recipe("digits", ("train.epochs=7",))
    with pytest.raises(RunDirectoryError) as caught, create_run(tmp_path, other, resume=True):
        pass
    assert f"train.epochs: recorded was {RECIPE.train.epochs}, given is 7" in str(caught.value)


def test_other_data_are_refused(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        directory.bind_data("a")
        directory.bind_data("a")
        with pytest.raises(DataError, match="digest b instead of a"):
            directory.bind_data("b")


def test_two_processes_cannot_hold_one_directory(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False):
        code = (
            "import sys; from pathlib import Path; from ecd_deploy.pipelines.record.run_directory import open_run\n"
            "from ecd_deploy.errors import RunDirectoryError\n"
            "try:\n    open_run(Path(sys.argv[1])).__enter__()\n"
            "except RunDirectoryError as error:\n    print(error); sys.exit(error.exit_code)\n"
        )
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert f"in use by another run (process {os.getpid()})" in other.stdout


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that refuses even root")
def test_an_unwritable_place_is_an_artefact_error() -> None:
    with pytest.raises(ArtefactError, match="cannot write"), create_run(Path("/proc/run"), RECIPE, resume=False):
        pass


def test_a_file_in_the_way_is_an_artefact_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(ArtefactError, match="cannot write"),
        create_run(tmp_path / "file" / "run", RECIPE, resume=False),
    ):
        pass


@pytest.mark.parametrize(
    "overrides", [(), ("description='a \"b\" \\\\ ü'", "data.path='x'", "train.learning_rate=1e-7")]
)
def test_recipe_file_reads_back_equal(overrides: tuple[str, ...]) -> None:
    recipe = load_recipe("cifar100-resnet20", overrides)
    assert parse_recipe(recipe_to_toml(recipe), "again") == recipe


def test_what_a_kill_left_before_the_recipe_was_recorded_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("1\n")
    (tmp_path / ".MANIFEST.json.00aa.partial").write_text("{")
    with create_run(tmp_path, RECIPE, resume=True):
        pass
    (tmp_path / "recipe.toml").unlink()
    write_manifest(tmp_path, Manifest(recipe_digest=RECIPE.digest()))
    with create_run(tmp_path, RECIPE, resume=True) as directory:
        assert directory.recipe == RECIPE
    assert not list(tmp_path.glob(".*.partial"))


def test_another_recipe_takes_the_place_if_changes_are_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        directory.bind_data("a")
    other = load_recipe("digits", ("train.epochs=3",))
    with create_run(tmp_path, other, resume=True, accept_changes=True) as directory:
        directory.bind_data("b", accept_changes=True)
    assert f"train.epochs: recorded was {RECIPE.train.epochs}, given is 3" in caplog.text
    with open_run(tmp_path) as directory:
        assert directory.recipe == other
        assert directory.manifest.recipe_digest == other.digest()
        assert directory.manifest.data_digest == "b"


STEPS = ("training.json", "split.json", "split.safetensors", "audit.json", "artefacts.json", "profile.json")


@pytest.mark.parametrize(
    ("anew", "read", "step"),
    [
        ("training.json", "split.json", "split"),
        ("training.json", "profile.json", "split"),
        ("split.safetensors", "artefacts.json", "export"),
        ("audit.json", "profile.json", "export"),
        ("artefacts.json", "profile.json", "profile"),
        ("recipe.toml", "training.json", "train"),
    ],
)
def test_what_was_made_from_another_file_names_the_step_to_run_again(
    tmp_path: Path, anew: str, read: str, step: str
) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        for name in STEPS:
            directory.write(name, b'{"text": "first"}')
        assert directory.read_json(read, Note) == Note(text="first")
        directory.write(anew, b'{"text": "second"}')
        with pytest.raises(RunDirectoryError, match=rf"derived from another \S+ .* run `ecd-deploy {step} "):
            directory.read_json(read, Note)


def test_the_same_bytes_made_again_leave_what_follows_valid(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        for name in (*STEPS, *STEPS[:3]):
            directory.write(name, b'{"text": "first"}')
        assert directory.read_json("profile.json", Note) == Note(text="first")


def test_a_link_is_not_read(tmp_path: Path) -> None:
    with create_run(tmp_path / "run", RECIPE, resume=False) as directory:
        directory.write("exports/student.onnx", b"abc")
        directory.write("training.json", b"{}")
        (tmp_path / "run" / "exports").rename(tmp_path / "elsewhere")
        (tmp_path / "run" / "exports").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "run" / "training.json").rename(tmp_path / "training.json")
        (tmp_path / "run" / "training.json").symlink_to(tmp_path / "training.json")
        for name in ("exports/student.onnx", "training.json"):
            with pytest.raises(ArtefactError, match="is a link"):
                directory.read(name)


@pytest.mark.parametrize("name", ["MANIFEST.json", "recipe.toml"])
def test_a_run_whose_manifest_or_recipe_is_a_link_is_refused(tmp_path: Path, name: str) -> None:
    with create_run(tmp_path / "run", RECIPE, resume=False):
        pass
    (tmp_path / "run" / name).rename(tmp_path / name)
    (tmp_path / "run" / name).symlink_to(tmp_path / name)
    with pytest.raises(ArtefactError, match=rf"{name} is a link"), open_run(tmp_path / "run"):
        pass
    with pytest.raises(ArtefactError, match=rf"{name} is a link"):
        read_run(tmp_path / "run")


def test_a_recipe_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        directory.write("recipe.toml", b'name = "\xff"\n')
    with pytest.raises(ArtefactError, match=r"recipe\.toml is not UTF-8"), open_run(tmp_path):
        pass


def test_a_lock_that_is_a_link_empties_nothing(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with create_run(tmp_path / "run", RECIPE, resume=False):
        pass
    (tmp_path / "run" / ".lock").unlink()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(ArtefactError, match="cannot write"), open_run(tmp_path / "run"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["../student.onnx", "/etc/passwd", "exports/../../x", "", "exports//x"])
def test_a_manifest_that_leads_out_of_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        entry = directory.manifest.entry("recipe.toml")
    write_manifest(tmp_path, read_manifest(tmp_path).model_copy(update={"files": {name: entry}}))
    with pytest.raises(ArtefactError, match="no path below the run directory"), open_run(tmp_path):
        pass


def test_what_interrupted_writes_left_is_swept(tmp_path: Path) -> None:
    with create_run(tmp_path, RECIPE, resume=False) as directory:
        directory.write("exports/student.onnx", b"abc")
    for name in (".gate.json.0011aabb.partial", "exports/.student.onnx.0011aabb.partial"):
        (tmp_path / name).write_bytes(b"half")
    with open_run(tmp_path):
        pass
    assert not list(tmp_path.rglob("*.partial"))
