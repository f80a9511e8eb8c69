from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecd_deploy.data import Batch, DataSplits, ImageFiles, LoaderBatches, TrainBatches, load_data
from ecd_deploy.data.augmentation.augmenter import Augmenter
from ecd_deploy.data.augmentation.own import OwnTransform
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.augment import AugmentConfig
from tests.data.mixed_images import CLASSES, files_config, make_images

BATCH = 8
CROP: dict[str, Any] = {"random_resized_crop": (0.2, 1.0)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def data(root: Path) -> DataSplits:
    return load_data(files_config(root), seed=0)


@pytest.fixture(autouse=True)
def no_worker_stays() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def files_of(data: DataSplits) -> ImageFiles:
    assert data.train_files is not None
    return data.train_files


def batches_of(
    data: DataSplits,
    *,
    index: int = 0,
    processes: int = 1,
    augmenter: Augmenter | None = None,
    balanced: bool = False,
    **changes: object,
) -> LoaderBatches:
    config = files_config(files_of(data).root, **changes)
    return LoaderBatches(
        files_of(data),
        data.normalisation,
        StepPlan(
            images=len(files_of(data)),
            batch_size=BATCH,
            seed=0,
            process_index=index,
            process_count=processes,
            balanced=files_of(data).labels if balanced else None,
        ),
        config,
        image_size=data.image_size,
        augmenter=augmenter,
    )


def same(first: Batch, second: Batch) -> bool:
    tensors = zip(first.tensors(), second.tensors(), strict=True)
    return first.step_images == second.step_images and all(torch.equal(one, other) for one, other in tensors)


AUGMENTER = Augmenter(
    AugmentConfig(rotation=20, policy="trivialaugment", hue=0.1, random_erasing=0.5, mixup=0.4, cutmix=1.0),
    (OwnTransform.of("tests.data.augmentation.own_transforms:noisy"),),
    classes=len(CLASSES),
    seed=0,
)


@pytest.mark.parametrize("changes", [CROP, {"crop_padding": 2}, {"augmenter": AUGMENTER, "balanced": True}])
def test_bytes_are_the_same_for_any_number_of_workers_and_after_a_resume(
    data: DataSplits, changes: dict[str, Any]
) -> None:
    expected = {epoch: list(batches_of(data, **changes).epoch(epoch)) for epoch in (1, 2)}
    assert len(expected[1]) == len(batches_of(data)) == 4
    assert not same(expected[1][0], expected[2][0])
    for workers in (1, 2):
        with closing(batches_of(data, workers=workers, **changes)) as batches:
            next(batches.epoch(2))  # left in its middle
            for epoch, first_step in ((1, 0), (2, 1), (1, 3)):
                found = list(batches.epoch(epoch, first_step))
                assert len(found) == 4 - first_step
                assert all(map(same, found, expected[epoch][first_step:]))


def test_an_epoch_holds_every_file_once_with_its_label(data: DataSplits) -> None:
    epoch = list(batches_of(data, **CROP).epoch(1))
    indices = torch.cat([batch.indices for batch in epoch])
    assert sorted(indices.tolist()) == list(range(27))
    assert torch.cat([batch.labels for batch in epoch]).tolist() == files_of(data).labels[indices].tolist()
    for index, path in enumerate(files_of(data).paths):
        assert path.parent.name == CLASSES[int(files_of(data).labels[index])]


def test_two_processes_share_the_steps_of_one(data: DataSplits) -> None:
    shares = [batches_of(data, index=index, processes=2, **CROP).epoch(3) for index in (0, 1)]
    for whole, first, second in zip(batches_of(data, **CROP).epoch(3), *shares, strict=False):
        assert torch.equal(torch.cat([first.images, second.images]), whole.images)
        assert torch.equal(torch.cat([first.indices, second.indices]), whole.indices)
        assert first.step_images == second.step_images == len(whole)


@pytest.mark.parametrize("framing", [{}, {"resize": 11}, {"image_size": (6, 9)}, {"image_size": (9, 6), "resize": 12}])
def test_without_resized_crops_batches_are_those_of_the_cache(root: Path, framing: dict[str, Any]) -> None:
    data = load_data(files_config(root, **framing), seed=0)
    cached = load_data(files_config(root, loading="cache", **framing), seed=0)
    assert np.array_equal(cached.train.images, data.train.images)  # 27 files are all in the sample
    plan = StepPlan(images=len(cached.train), batch_size=BATCH, seed=0)
    expected = TrainBatches(cached.train, data.normalisation, plan, crop_padding=2, horizontal_flip=True)
    for found, batch in zip(batches_of(data, crop_padding=2, **framing).epoch(2), expected.epoch(2), strict=True):
        assert same(found, batch)


def test_random_crops_are_brought_to_a_size_that_is_no_square(root: Path) -> None:
    data = load_data(files_config(root, image_size=(6, 9)), seed=0)
    assert {batch.images.shape[1:] for batch in batches_of(data, **CROP).epoch(1)} == {(3, 6, 9)}


def test_random_crops_are_of_the_whole_image_whatever_the_resize(data: DataSplits) -> None:
    for found, batch in zip(
        batches_of(data, resize=11, **CROP).epoch(1), batches_of(data, **CROP).epoch(1), strict=True
    ):
        assert same(found, batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_vanish_or_break_are_all_named(tmp_path: Path, workers: int) -> None:
    data = load_data(files_config(make_images(tmp_path)), seed=0)
    with closing(batches_of(data, workers=workers)) as batches:
        indices = next(batches.epoch(1)).indices.tolist()
        gone, broken = (files_of(data).paths[index] for index in indices[:2])
        gone.unlink()
        broken.write_bytes(b"<html>")
        with pytest.raises(DataError) as caught:
            list(batches.epoch(1))
    text = str(caught.value)
    assert text.startswith("2 image(s) that could be used when the training began")
    assert f"{gone}: is not there any more" in text
    assert f"{broken}: not an image" in text
    assert "Traceback" not in text


def test_a_killed_worker_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    data = load_data(files_config(make_images(tmp_path)), seed=0)
    with closing(batches_of(data, workers=2)) as batches:
        indices = [int(batch.indices[0]) for batch in batches.epoch(1)]
        path = files_of(data).paths[indices[2]]
        path.unlink()
        os.mkfifo(path)  # whoever opens it waits
        steps = batches.epoch(1)
        next(steps)
        with reader_of(path) as worker:
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(DataError) as caught:
            list(steps)
    assert f"(process {worker}) was killed while it decoded {path}" in str(caught.value)
    assert caught.value.exit_code == 4


@contextmanager
def reader_of(path: Path) -> Iterator[int]:
    """The worker that waits for what comes out of the pipe, as long as it waits."""
    with path.open("wb"):  # once it is open at both ends
        for child in multiprocessing.active_children():
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                if any(fd.resolve() == path for fd in Path(f"/proc/{child.pid}/fd").iterdir()):
                    assert child.pid is not None
                    yield child.pid
                    return
    raise AssertionError(f"nobody reads {path}")


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_signals_from_elsewhere_leave_workers_at_work(data: DataSplits, name: str) -> None:
    expected = list(batches_of(data, **CROP).epoch(1))
    with closing(batches_of(data, workers=2, **CROP)) as batches:
        steps = batches.epoch(1)
        first = next(steps)
        deadline = time.monotonic() + 60
        while any(pid is None for pid, _ in batches._log.entries()):  # one may start while the other makes batches
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for child in multiprocessing.active_children():
            subprocess.run(["kill", f"-{name}", str(child.pid)], check=True)
        assert all(map(same, [first, *steps], expected))
        assert len(list(batches.epoch(2))) == 4


def test_workers_end_when_the_training_tells_them_to(data: DataSplits) -> None:
    with closing(batches_of(data, workers=2)) as batches:
        next(batches.epoch(1))
        workers = multiprocessing.active_children()
        for worker in workers:
            worker.terminate()
            worker.join(10)
        assert [worker.exitcode for worker in workers] == [0, 0]
