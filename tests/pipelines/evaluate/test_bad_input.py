"""What cannot be used ends with one line and its exit code, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.commands import run_command
from tests.pipelines.evaluate.colours import INPUT, save_images, write_model

COMMAND = ("evaluate", "model.onnx", "--data", "images", "--config", "gate.toml", "--out", "out")


def no_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def another_type(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "images/red/0.png").read_bytes())


def empty_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")


def cut_off(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-40])


def weights_that_are_absent(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").unlink()


def weights_outside_of_the_folder(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "images/model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    data = (folder / "images/model.onnx").read_bytes()
    (folder / "images/w.bin").rename(folder.parent / "w.bi")
    (folder / "images/model.onnx").unlink()
    (folder / "model.onnx").write_bytes(data.replace(b"\x05w.bin", b"\x07../w.bi"))


def eighty_outputs(folder: Path) -> None:
    write_model(folder / "model.onnx", outputs=80)


def too_few_names(folder: Path) -> None:
    (folder / "gate.toml").write_text(f'{INPUT}classes = "names.txt"\n')
    (folder / "names.txt").write_text("blue\ngreen\n")


def other_names(folder: Path) -> None:
    (folder / "gate.toml").write_text(f'{INPUT}classes = "names.txt"\n')
    (folder / "names.txt").write_text("blue\ngreen\nyellow\n")


def no_names(folder: Path) -> None:
    (folder / "gate.toml").write_text(f'{INPUT}classes = "absent.txt"\n')


def no_data(folder: Path) -> None:
    (folder / "images").rename(folder / "elsewhere")


def no_class_folders(folder: Path) -> None:
    no_data(folder)
    (folder / "images").mkdir()


def empty_class(folder: Path) -> None:
    for image in (folder / "images/red").iterdir():
        image.unlink()


def whole_data_set(folder: Path) -> None:
    no_data(folder)
    save_images(folder / "first")
    (folder / "images").mkdir()
    (folder / "first").rename(folder / "images/train")
    (folder / "elsewhere").rename(folder / "images/test")


def unreadable_image(folder: Path) -> None:
    (folder / "images/red/0.png").write_bytes(b"no image")


def image_cut_off(folder: Path) -> None:
    path = folder / "images/red/0.png"
    path.write_bytes(path.read_bytes()[:100])


def other_size(folder: Path) -> None:
    save_images(folder / "large", each=1, side=20)
    (folder / "large/red/0.png").replace(folder / "images/red/0.png")


def not_a_number(folder: Path) -> None:
    write_model(folder / "model.onnx", factor=float("nan"))


def scores_that_depend_on_the_batch(folder: Path) -> None:
    write_model(folder / "model.onnx", minus_batch_mean=True)


def no_rows_of_scores(folder: Path) -> None:
    write_model(folder / "model.onnx", flat=False)


def two_outputs(folder: Path) -> None:
    write_model(folder / "model.onnx", second_output=True)


def absent_output(folder: Path) -> None:
    (folder / "gate.toml").write_text(f'{INPUT}output = "probs"\n')


def two_inputs(folder: Path) -> None:
    write_model(folder / "model.onnx", second_input=True)


def free_sides(folder: Path) -> None:
    write_model(folder / "model.onnx", sides=("h", "w"))


def no_normalisation(folder: Path) -> None:
    (folder / "gate.toml").write_text("[input]\n")


def normalisation_of_one_channel(folder: Path) -> None:
    (folder / "gate.toml").write_text("[input]\nmean = [0.5]\nstd = [0.5]\n")


def another_input_size(folder: Path) -> None:
    (folder / "gate.toml").write_text(f"{INPUT}size = [16, 16]\n")


def not_probabilities(folder: Path) -> None:
    (folder / "gate.toml").write_text(f'{INPUT}scores = "probabilities"\n')


def unknown_key(folder: Path) -> None:
    (folder / "gate.toml").write_text(f"{INPUT}means = [1]\n")


def something_in_the_output(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out/thesis.txt").write_text("mine")


CASES: list[tuple[Callable[[Path], None], int, str]] = [
    (no_model, 2, "there is no file model.onnx"),
    (another_type, 4, "not an ONNX model"),
    (empty_model, 4, "not an ONNX model"),
    (cut_off, 4, "is not an ONNX model or .ort file, or is cut off"),
    (weights_that_are_absent, 4, "weights that it keeps in another file cannot be read"),
    (weights_outside_of_the_folder, 4, "model.onnx"),
    (eighty_outputs, 4, "80 outputs, and images has images of 3 classes"),
    (too_few_names, 4, "3 outputs, and 2 classes are named"),
    (other_names, 4, "only in the model: yellow; only in images: red"),
    (no_names, 2, "cannot read absent.txt"),
    (no_data, 2, "no folder, CSV file or Parquet file images"),
    (no_class_folders, 4, "has no class folders"),
    (empty_class, 4, "classes without images: red"),
    (whole_data_set, 4, "give one of them"),
    (unreadable_image, 4, "images/red/0.png: not an image"),
    (image_cut_off, 4, "images/red/0.png"),
    (other_size, 4, "red/0.png is 20 x 20, and the model takes 8 x 8"),
    (not_a_number, 4, "not finite"),
    (scores_that_depend_on_the_batch, 4, "other scores alone than in the batches of the evaluation"),
    (no_rows_of_scores, 4, "one row of scores"),
    (two_outputs, 2, "set input.output to one of scores, colour"),
    (absent_output, 2, "input.output is 'probs'; model.onnx takes pixels: float32 [n, 3, 8, 8], and gives scores"),
    (two_inputs, 4, "this has 2, pixels, boxes"),
    (free_sides, 2, "--shape HEIGHTxWIDTH"),
    (no_normalisation, 2, "set mean = [..., ..., ...]"),
    (normalisation_of_one_channel, 2, "1 value(s) for 3 channel(s)"),
    (another_input_size, 2, "input.size is 16 x 16"),
    (not_probabilities, 4, "input.scores is 'probabilities'"),
    (unknown_key, 2, "input.means: unknown key (did you mean 'mean'?)"),
    (something_in_the_output, 2, "holds something else"),
]


@pytest.mark.parametrize(("spoil", "code", "said"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_bad_input_is_refused(tmp_path: Path, spoil: Callable[[Path], None], code: int, said: str) -> None:
    save_images(tmp_path / "images", each=2)
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(INPUT)
    spoil(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*"))
    ended = run_command(COMMAND, cwd=tmp_path)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not ended.out
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.png,red\n", "no column 'path' in its first line; its columns are file, label"),
        ("path,label\n", "names no images"),
        ("path,label\nimages/red/0.png\n", "line 2: 1 values for 2 columns"),
        ("path,label\nimages/red/0.png,\n", "line 2: label is empty"),
        ("path,label\nimages/red/9.png,red\nimages/blue/0.png,blue\nimages/green/0.png,green\n", "9.png: not a file"),
        ("path,label\nimages/red/0.png,red\nimages/red/0.png,blue\n", "names images/red/0.png twice"),
        ("path,label,label\na,b,c\n", "two of one name"),
        ('path,label\n"images', "cannot be read as a CSV file"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    save_images(tmp_path / "images", each=1)
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(INPUT)
    (tmp_path / "test.csv").write_text(text)
    ended = run_command([*COMMAND, "--data", "test.csv"], cwd=tmp_path)
    assert ended.code == 4, ended.err
    assert said in ended.err
    assert not (tmp_path / "out").exists()


def test_bad_images_are_left_out_when_asked(tmp_path: Path) -> None:
    save_images(tmp_path / "images", each=3)
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(INPUT)
    unreadable_image(tmp_path)
    path = tmp_path / "images/blue/1.png"
    path.write_bytes(path.read_bytes()[:100])
    words = [*COMMAND, "--skip-bad"]
    ended = run_command(words, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "7 of 7" in ended.out
    assert "2 image(s) cannot be used and were skipped" in ended.out


def test_bad_images_are_named_together_whichever_batch_meets_one_first(tmp_path: Path) -> None:
    save_images(tmp_path / "images", each=3)
    write_model(tmp_path / "model.onnx", batch=2)
    (tmp_path / "gate.toml").write_text(INPUT)
    cut, *texts = (tmp_path / "images" / name for name in ("blue/0.png", "green/1.png", "red/2.png"))
    cut.write_bytes(cut.read_bytes()[:60])  # its header can be read
    for path in texts:
        path.write_text("no image")
    ended = run_command(COMMAND, cwd=tmp_path)
    assert (ended.code, ended.out) == (4, ""), ended.err
    assert all(f"{path.relative_to(tmp_path)}: not an image" in ended.err for path in texts)
    for path in texts:
        path.write_bytes((tmp_path / "images/red/0.png").read_bytes())
    ended = run_command(COMMAND, cwd=tmp_path)
    assert ended.code == 4
    assert "1 image(s) cannot be used:\n  images/blue/0.png: " in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", ["8", "8x", "axb", "0x8", "8x8x3"])
def test_a_shape_that_is_none_is_refused(tmp_path: Path, shape: str) -> None:
    save_images(tmp_path / "images", each=1)
    write_model(tmp_path / "model.onnx", sides=("h", "w"))
    ended = run_command(["evaluate", "model.onnx", "--data", "images", "--shape", shape], cwd=tmp_path)
    assert ended.code == 2
    assert "--shape" in ended.err


def test_free_sides_take_a_shape(tmp_path: Path) -> None:
    save_images(tmp_path / "images", each=4)
    write_model(tmp_path / "model.onnx", sides=("h", "w"))
    (tmp_path / "gate.toml").write_text(INPUT)
    words = [*COMMAND, "--shape", "8x8"]
    ended = run_command(words, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "top-1 100.00%" in ended.out
