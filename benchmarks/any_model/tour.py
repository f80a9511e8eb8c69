"""The commands of docs/tutorial-any-model.md, in a folder with `model.onnx`, `model-int8.onnx` and `gate.toml`."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.pipelines.sshd import MISSING, start_server

_TRAINING = ("torch", "torchvision", "accelerate")
_MEASURED = (0, 3)  # a machine that others use leaves latencies undecided


def label_by_model(folder: Path, images: str, table: str) -> None:
    """Write a CSV file in which each image of a folder has the class that `model.onnx` chooses for it, by number."""
    names = sorted(f"{images}/{path.name}" for path in (folder / images).iterdir())
    said = _command(folder, ["predict", "model.onnx", *names, "--config", "gate.toml", "--top", "1", "--json"], (0,))
    rows = [(entry["image"], entry["classes"][0]["name"]) for entry in json.loads(said)]
    with (folder / table).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


def run(folder: Path, *, data: str, shape: str | None = None) -> int:
    """Evaluate, gate against the float model, profile here and over ssh, bundle, and run the bundle; print it all.

    Args:
        folder: with the models and `gate.toml`.
        data: the images in it.
        shape: `--shape` of `profile`, for a model that leaves it free.
    """
    images = ["--data", data, "--config", "gate.toml"]
    sized = [] if shape is None else ["--shape", shape]
    print(_command(folder, ["evaluate", "model.onnx", *images, "--out", "evaluation"], (0,)))
    print(
        _command(folder, ["gate", "model-int8.onnx", *images, "--baseline", "model.onnx", "--out", "gated"], _MEASURED)
    )
    print(_command(folder, ["profile", "model-int8.onnx", *sized], _MEASURED))
    print(_over_ssh(folder, ["profile", "model-int8.onnx", *sized]))
    print(_command(folder, ["bundle", "model-int8.onnx", *images], (0,)))
    with tarfile.open(folder / "model-int8.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    print(_checked(folder, [sys.executable, "model-int8/run.py"], _MEASURED).rpartition("\n{")[0])
    for name in ("evaluation/evaluation.json", "gated/gate.json", "gated/junit.xml", "gated/report.html"):
        if not (folder / name).is_file():
            raise FileNotFoundError(folder / name)
    return 0


def _over_ssh(folder: Path, words: Sequence[str]) -> str:
    """`profile` on this machine as a device, through an sshd of its own."""
    if MISSING:
        return "not measured over ssh: there is no OpenSSH server here"
    place = folder / "device"
    programs, temporary = place / "bin", place / "temporary"
    for path in (programs, temporary):
        path.mkdir(parents=True)
    server, process = start_server(place, temporary)
    try:
        # What a user has in ~/.ssh/config stands in a program of ssh's name.
        (programs / "ssh").write_text(
            f'#!/bin/sh\nPATH={shlex.quote(os.environ["PATH"])}\nexec {shlex.join(server.ssh)} "$@"\n'
        )
        (programs / "ssh").chmod(0o755)
        host = ["--host", f"{server.user}@127.0.0.1", "--python", sys.executable]
        return _command(folder, [*words, *host], _MEASURED, programs=str(programs))
    finally:
        process.terminate()
        process.wait()


def _command(folder: Path, words: Sequence[str], codes: Sequence[int], *, programs: str | None = None) -> str:
    blocked = folder / "without-training"
    blocked.mkdir(exist_ok=True)
    for name in _TRAINING:
        (blocked / f"{name}.py").write_text(f'raise ImportError("the core needs no {name}")\n')
    source = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(blocked), source))}
    if programs is not None:
        environment["PATH"] = os.pathsep.join((programs, os.environ["PATH"]))
    return _checked(folder, [sys.executable, "-m", "ecd_deploy", *words], codes, environment)


def _checked(
    folder: Path, command: Sequence[str], codes: Sequence[int], environment: dict[str, str] | None = None
) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    shown = command[3:] if "-m" in command else command[1:]
    print(f"$ {shlex.join(shown[:12])}", flush=True)
    return f"{done.stdout}{done.stderr}".rstrip() + "\n"
