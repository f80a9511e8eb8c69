from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime import RunOptions
from PIL import Image
from safetensors.numpy import load_file, save
from sklearn.datasets import load_digits
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)

from ecd_deploy.data.imagefolder.decode import read_whole
from ecd_deploy.exporters.onnx.file import read_onnx_file
from ecd_deploy.files import sha256_bytes, sha256_file
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.pipelines.evaluate import evaluate as evaluating
from ecd_deploy.pipelines.evaluate import stream
from ecd_deploy.pipelines.evaluate.classifier import Classifier, Input
from ecd_deploy.pipelines.evaluate.evaluate import evaluate, evaluate_files
from ecd_deploy.pipelines.evaluate.images import list_images
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.pipelines.evaluate.result import Evaluation, class_accuracies, count_top5
from ecd_deploy.pipelines.evaluate.target import Target
from ecd_deploy.recipe.input import InputConfig
from tests.commands import Ended, run_command
from tests.pipelines.evaluate.colours import (
    CLASSES,
    INPUT,
    MEAN,
    STD,
    draw,
    expected_probabilities,
    save_images,
    write_model,
)

EXPECTS = InputConfig(mean=MEAN, std=STD)


def test_the_command_leaves_the_probabilities_and_every_figure(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(INPUT)
    ended = run_command(["evaluate", model, "--data", images, "--config", "gate.toml", "--out", "out"], cwd=tmp_path)
    assert ended.code == 0, ended.err
    out = tmp_path / "out"
    stored = load_file(out / "probabilities.safetensors")
    expected, labels = expected_probabilities(10), np.repeat([0, 1, 2], 10)
    np.testing.assert_allclose(stored["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(stored["labels"], labels)
    found = Evaluation.from_json((out / "evaluation.json").read_bytes(), "no evaluation")
    chosen = expected.argmax(axis=1)
    assert found.correct == (chosen == labels).sum() == 24
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, chosen))
    assert [entry.recall for entry in found.classes] == pytest.approx(recall_score(labels, chosen, average=None))
    assert [entry.precision for entry in found.classes] == pytest.approx(precision_score(labels, chosen, average=None))
    assert found.top5 is None
    assert found.mean_confidence == pytest.approx(expected.max(axis=1).mean(), abs=1e-5)
    assert found.model.sha256 == sha256_file(model)
    assert found.probabilities_sha256 == sha256_file(out / "probabilities.safetensors")
    assert "top-1 80.00%" in ended.out
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == [f"{name}/{number}.png" for name in CLASSES for number in range(10)]
    assert [row["chosen"] for row in rows] == [CLASSES[choice] for choice in chosen]
    matrix = [row[1:] for row in list(csv.reader((out / "confusion.csv").read_text().splitlines()))[1:]]
    assert np.array(matrix, dtype=int).tolist() == confusion_matrix(labels, chosen).tolist()


def test_the_same_evaluation_gives_the_same_bytes(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    for name in ("one", "two"):
        evaluate(model, images, EXPECTS, out=tmp_path / name)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize("changed", ["bytes", "label", "name"])
def test_other_images_have_another_digest(tmp_path: Path, changed: str) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    before = evaluate(model, images, EXPECTS).evaluation
    image = images / "red/3.png"
    if changed == "bytes":
        Image.fromarray(draw("red", 77)).save(image)
    else:
        image.rename(images / ("blue/3a.png" if changed == "label" else "red/3a.png"))
    after = evaluate(model, images, EXPECTS).evaluation
    assert before.images.sha256 != after.images.sha256
    assert before.preprocessing_sha256 == after.preprocessing_sha256


@pytest.mark.parametrize(
    ("variant", "config"),
    [
        ({"layout": "nhwc"}, EXPECTS),
        ({"dtype": "float16"}, EXPECTS),
        ({"batch": 1}, EXPECTS),
        ({"batch": 7}, EXPECTS),
        ({"sides": ("h", "w")}, EXPECTS.model_copy(update={"size": (8, 8)})),
        ({"softmax": True}, EXPECTS),
    ],
    ids=["nhwc", "float16", "batch of one", "batch of seven", "free sides", "probabilities"],
)
def test_every_way_to_take_the_same_images_gives_the_same(
    tmp_path: Path, variant: dict[str, object], config: InputConfig
) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx", **variant)  # type: ignore[arg-type]
    found = evaluate(model, images, config)
    tolerance = 2e-2 if "dtype" in variant else 1e-5
    np.testing.assert_allclose(found.scored.probabilities, expected_probabilities(10), atol=tolerance)
    assert found.evaluation.model.scores == ("probabilities" if "softmax" in variant else "logits")


def test_weights_in_another_file_of_the_folder_are_read(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    found = evaluate(model, images, EXPECTS)
    parts = {part.file: part.sha256 for part in found.evaluation.model.parts}
    assert parts == {name: sha256_file(tmp_path / name) for name in ("model.onnx", "model.onnx.data")}
    np.testing.assert_allclose(found.scored.probabilities, expected_probabilities(10), atol=1e-5)


def test_pixels_of_uint8_are_given_as_they_are(tmp_path: Path) -> None:
    images, model = (
        save_images(tmp_path / "images"),
        write_model(tmp_path / "model.onnx", dtype="uint8", factor=1 / 255),
    )
    found = evaluate(model, images, InputConfig())
    plain = expected_probabilities(10, (0.0,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(found.scored.probabilities, plain, atol=1e-5)


def test_a_csv_file_names_images_labels_and_slices(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    lines = ["camera,label,path", *(f"c{n % 2},{name},images/{name}/{n}.png" for n in range(10) for name in CLASSES)]
    (tmp_path / "test.csv").write_text("\n".join(lines))
    found = evaluate(write_model(tmp_path / "model.onnx"), tmp_path / "test.csv", EXPECTS)
    assert found.evaluation.correct == 24
    (camera,) = found.scored.slices
    assert camera.name == "camera"
    assert camera.values == tuple(f"c{n % 2}" for n in range(10) for _ in CLASSES)


@pytest.mark.needs("pyarrow")
@pytest.mark.parametrize("image", ["path", "image"])
def test_a_parquet_file_is_evaluated_as_the_same_csv_file_is(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    files = sorted(images.rglob("*.png"))
    cells = [file.read_bytes() if image == "image" else str(file.relative_to(tmp_path)) for file in files]
    columns = {
        image: cells,
        "label": [file.parent.name for file in files],
        "camera": [1] * len(files),
    }
    parquet.write_table(pa.table(columns), tmp_path / "test.parquet")
    (tmp_path / "gate.toml").write_text(f"[gate]\nmin_top1 = 0.5\n[gate.slices.camera]\nmin_top1 = 0.5\n{INPUT}")
    command: list[str | Path] = [model, "--data", "test.parquet", "--config", "gate.toml", "--out", "out"]
    ended = run_command(["gate", *command], cwd=tmp_path)
    assert ended.code == 0, ended.out + ended.err
    rows = list(csv.DictReader((tmp_path / "out/predictions.csv").read_text().splitlines()))
    expected = [f"row {n:08}" if image == "image" else str(file.relative_to(tmp_path)) for n, file in enumerate(files)]
    assert [row["path"] for row in rows] == expected
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert found["probabilities_sha256"] == evaluate(model, images, EXPECTS).evaluation.probabilities_sha256


def test_of_a_table_with_splits_the_test_images_are_evaluated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_images(tmp_path / "images")
    lines = [f"images/{name}/{n}.png,{name},{'Test' if n < 4 else 'train'}" for n in range(10) for name in CLASSES]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,split", *lines]))
    model = write_model(tmp_path / "model.onnx")
    found = evaluate(model, tmp_path / "all.csv", EXPECTS)
    assert found.files.names == tuple(f"images/{name}/{n}.png" for n in range(4) for name in CLASSES)
    assert "the 12 images whose split is test" in caplog.text
    (tmp_path / "all.csv").write_text("\n".join(["path,label,split", *lines]).replace("train", "night"))
    assert len(evaluate(model, tmp_path / "all.csv", EXPECTS).files) == 30  # no split of a data set, but a slice


def test_labels_that_are_numbers_are_those_of_the_outputs(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    places = {"blue": 0, "green": 1, "red": 2}
    lines = ["path,label", *(f"images/{name}/{n}.png,{places[name]}" for n in range(10) for name in ("red", "green"))]
    (tmp_path / "test.csv").write_text("\n".join(lines))
    found = evaluate(write_model(tmp_path / "model.onnx"), tmp_path / "test.csv", EXPECTS).evaluation
    assert found.correct == 16
    assert [entry.images for entry in found.classes] == [0, 10, 10]


def test_numbers_that_are_not_all_of_outputs_are_warned_of(tmp_path: Path) -> None:
    images = save_images(tmp_path / "images", each=2)
    for name, number in {"blue": "1", "green": "2", "red": "10"}.items():
        (images / name).rename(images / number)
    found = evaluate(write_model(tmp_path / "model.onnx"), images, EXPECTS).evaluation
    assert "as texts (1, 10, 2, ...)" in (found.classes_warning or "")
    for number, other in {"1": "0", "2": "1", "10": "2"}.items():
        (images / number).rename(images / other)
    found = evaluate(tmp_path / "model.onnx", images, EXPECTS).evaluation
    assert "the images' classes are numbers" in (found.classes_warning or "")


def test_a_file_name_that_is_not_utf8_is_written_escaped(tmp_path: Path) -> None:
    images = save_images(tmp_path / "images", each=2)
    (images / "red/0.png").rename(os.fsdecode(os.fsencode(images / "red") + b"/\xff.png"))
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(INPUT)
    command = ["evaluate", "model.onnx", "--data", "images", "--config", "gate.toml", "--out", "out"]
    ended = run_command(command, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "red/\\udcff.png,red," in (tmp_path / "out/predictions.csv").read_text()


def test_names_in_another_order_than_that_of_the_folders_are_matched(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    for name in CLASSES:  # the outputs stay blue, green, red
        (images / name).rename(images / {"blue": "z", "green": "y", "red": "x"}[name])
    (tmp_path / "names.txt").write_text("z\ny\nx\n")
    (tmp_path / "gate.toml").write_text(f'{INPUT}classes = "names.txt"\n')
    away = tmp_path / "away"
    away.mkdir()
    ended = run_command(["evaluate", model, "--data", images, "--config", "../gate.toml"], cwd=away)
    assert ended.code == 0, ended.err
    assert "top-1 80.00%" in ended.out


def test_larger_images_are_brought_to_the_size(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images", side=32), write_model(tmp_path / "model.onnx")
    for resize in (8, 12, (9, 10), "stretch"):
        found = evaluate(model, images, EXPECTS.model_copy(update={"resize": resize}))
        assert found.evaluation.correct == 24


def test_preprocessing_is_that_of_an_independent_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    given = {"height": 4, "width": 5, "resize": None, "scale": 2.0, "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    found = Preprocessing(**given, channels="bgr", layout="nhwc", dtype="float32").apply(pixels)
    expected = (pixels[:, [2, 1, 0]].transpose(0, 2, 3, 1) / 255 * 2 - [0.1, 0.2, 0.3]) / [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_top5_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    probabilities = random.dirichlet(np.ones(9), 400).astype(np.float32)
    labels = random.integers(0, 9, 400)
    scored = ScoredImages(probabilities, labels, tuple("abcdefghi"))
    expected = top_k_accuracy_score(labels, probabilities, k=5, labels=range(9), normalize=False)
    assert count_top5(scored) == expected
    assert sum(entry.correct for entry in class_accuracies(scored)) == scored.correct.sum()


def test_batches_are_decoded_a_few_ahead_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, model = save_images(tmp_path / "images", each=40), write_model(tmp_path / "model.onnx", batch=2)
    decoded = 0
    ahead: list[int] = []
    read, scores = read_whole, Classifier.scores

    def count(path: Path, channels: int, fit: Callable[[Image.Image], Image.Image]) -> object:
        nonlocal decoded
        decoded += 1
        return read(path, channels, fit)

    def note(classifier: Classifier, batch: Input, under: RunOptions | None = None) -> NDArray[np.float32]:
        ahead.append(decoded - 2 * len(ahead))
        return scores(classifier, batch, under)

    monkeypatch.setattr(stream, "read_whole", count)
    monkeypatch.setattr(Classifier, "scores", note)
    found = evaluate(model, images, EXPECTS)
    assert decoded >= 120  # and again for other ways to prepare them
    assert max(ahead[:60]) <= 2 * (found.classifier.threads + 4)


def test_an_artefact_of_this_project_needs_no_configuration(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
        path = tmp_path / "images" / str(label) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)).save(path)
    model = finished_run[0] / "exports" / "student.onnx"
    ended = run_command(["evaluate", model, "--data", "images", "--out", "out"], cwd=tmp_path)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert found["preprocessing_from"] == found["classes_from"] == "the model's metadata"
    assert found["correct"] >= 0.9 * 200


def test_only_what_is_the_same_by_its_digest_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    files = list_images(images)
    first = evaluate(model, images, EXPECTS, out=tmp_path / "out")
    again = evaluate_files(Target(read_onnx_file(model)), files, EXPECTS, reuse=tmp_path / "out")
    assert again.evaluation == first.evaluation
    np.testing.assert_array_equal(again.scored.probabilities, first.scored.probabilities)

    def score_anew(*_: object, **__: object) -> None:
        raise LookupError("scored anew")

    monkeypatch.setattr(evaluating, "score", score_anew)
    same = read_onnx_file(model)
    evaluate_files(Target(same), files, EXPECTS, reuse=tmp_path / "out")
    with pytest.raises(LookupError):
        evaluate_files(Target(same), files, EXPECTS.model_copy(update={"scale": 2.0}), reuse=tmp_path / "out")
    other = read_onnx_file(write_model(tmp_path / "other.onnx", factor=2.0))
    with pytest.raises(LookupError):
        evaluate_files(Target(other), files, EXPECTS, reuse=tmp_path / "out")
    Image.fromarray(draw("red", 77)).save(images / "red/3.png")
    with pytest.raises(LookupError):
        evaluate_files(Target(same), files, EXPECTS, reuse=tmp_path / "out")


def test_probabilities_of_another_shape_are_not_used_again(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    first = evaluate(model, images, EXPECTS, out=tmp_path / "out")
    other = save({"probabilities": first.scored.probabilities[:5]})
    (tmp_path / "out/probabilities.safetensors").write_bytes(other)
    changed = first.evaluation.model_copy(update={"probabilities_sha256": sha256_bytes(other)})
    (tmp_path / "out/evaluation.json").write_bytes(changed.to_json())
    again = evaluate_files(Target(read_onnx_file(model)), list_images(images), EXPECTS, reuse=tmp_path / "out")
    np.testing.assert_array_equal(again.scored.probabilities, first.scored.probabilities)


def test_changed_probabilities_are_not_used_again(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images"), write_model(tmp_path / "model.onnx")
    first = evaluate(model, images, EXPECTS, out=tmp_path / "out")
    stored = tmp_path / "out/probabilities.safetensors"
    stored.write_bytes(stored.read_bytes()[:-4] + bytes(4))
    again = evaluate_files(Target(read_onnx_file(model)), list_images(images), EXPECTS, reuse=tmp_path / "out")
    np.testing.assert_array_equal(again.scored.probabilities, first.scored.probabilities)
