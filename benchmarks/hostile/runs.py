"""Run directories that were moved, linked, forged or half made anew, and commands that SIGTERM stops in one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.commands import Ended
from benchmarks.hostile.case import FRESH, Call, Case, Place, run, settings
from benchmarks.hostile.students import SOURCE
from ecd_deploy.files import sha256_bytes
from ecd_deploy.pipelines.record.manifest import FileEntry, read_manifest, write_manifest

TINY = (
    *("train.epochs=1", "data.train_limit=200", "data.test_limit=100", "method.kernels=2", "train.warmup_epochs=0.0"),
    *("profile.min_seconds=0.05", "profile.max_seconds=1.0", "profile.warmup_seconds=0.0"),
)
FORMATS = 'export.formats=["safetensors", "onnx", "onnx-int8"]'
_BAD, _WRONG, _STOPPED = frozenset({4}), frozenset({2}), frozenset({143})
_REFUSED = _BAD | _WRONG
_SECONDS_TO_VERIFY = 1.5
_COMMANDS = ("gate", "report", "bundle", "verify", "validate", "profile")

Change = Callable[[Path], object]


def cases() -> list[Case]:
    """By the commands that read a run."""
    return [
        *(_forged(command, title, change) for title, change in _FORGED.items() for command in _COMMANDS),
        *(_case(f"{command}: onnx file is a link", command, _link("exports/student.onnx")) for command in _COMMANDS),
        *(
            _case(f"{command}: exports is a link", command, _link("exports"))
            for command in ("gate", "verify", "bundle")
        ),
        *(_case(f"gate: {name} is a link", "gate", _link(name)) for name in ("validation.json", "MANIFEST.json")),
        *(_case(f"gate: {name} is not there", "gate", _removed(name)) for name in ("validation.json", "recipe.toml")),
        *(_case(f"{command}: .lock is a link", command, _lock, codes=_BAD) for command in ("gate", "split")),
        _case("verify: a manifest of another version", "verify", _edited('": 2,', '": 99,'), says="schema_version"),
        _case("gate: a manifest of a version that is text", "gate", _edited('": 2,', '": "x",'), says="schema_version"),
        _case("gate: a manifest without a version", "gate", _edited('"schema_version": 2,', "")),
        _case("gate: a manifest that is a list", "gate", lambda run: (run / "MANIFEST.json").write_text("[]")),
        _case("gate: a manifest nested deeply", "gate", _nested("MANIFEST.json")),
        _case("gate: a manifest that is not UTF-8", "gate", lambda run: (run / "MANIFEST.json").write_bytes(b"\xff{}")),
        _case("gate: a folder", "gate", _only_a_folder, codes=_WRONG),
        _case("gate: the manifest is a folder", "gate", _folder_for_manifest, codes=_REFUSED),
        *(_baseline(title, change) for title, change in _BASELINES.items()),
        Case(
            kind="run",
            name="gate: half-written files of a killed run",
            plant=_partial,
            codes=frozenset({0, 1, 3}),
            writes=("run/gate.json", "run/junit.xml", "run/MANIFEST.json", "run/*.partial"),
            check=lambda folder, _: "it was not swept" if list(folder.rglob("*.partial")) else None,
        ),
        *(
            _stale(step, command, named)
            for step, command, named in (
                ("split", "gate", "export"),
                ("split", "report", "export"),
                ("split", "bundle", "export"),
                ("split", "verify", ""),
                ("train", "gate", "split"),
                ("train", "export", "split"),
                ("train", "bundle", "split"),
                ("export", "gate", "validate"),
                ("export", "report", "validate"),
            )
        ),
        *(_signal(command, forwards) for command in ("split", "export") for forwards in (1, 3)),
        _signal("validate", 1),
        _signal("verify", 0, "--reproduce"),
        _signal("train", 5, "--recipe", "digits", "--no-rehearsal", *settings(*TINY, "method.stages=[2]")),
        *(_telemetry(command) for command in ("validate", "profile")),
    ]


def _case(name: str, command: str, change: Change, *, codes: frozenset[int] = _REFUSED, says: str = "") -> Case:
    def plant(place: Place) -> Call:
        change(place.run())
        return Call(words=(command, "run"))

    # gate tells CI of what keeps it from a verdict; verify lists what differs
    writes = ("run/junit.xml", "run/MANIFEST.json") if command == "gate" else ()
    return Case(kind="run", name=name, plant=plant, codes=codes, says=says, lines=6, writes=writes)


def _forged(command: str, title: str, change: Change) -> Case:
    name = f"{command}: {title}"
    if command != "profile" or "artefact" not in title:
        return _case(name, command, change)
    # It takes what validation.json names, and has no need of artefacts.json.
    case = _case(name, command, change, codes=frozenset({0, 3}))
    return dataclasses.replace(case, writes=("run/MANIFEST.json", "run/profile.json"))


def _link(name: str) -> Change:
    def change(run: Path) -> None:
        target = run.with_name("elsewhere")
        (run / name).rename(target)
        (run / name).symlink_to(target)

    return change


def _removed(name: str) -> Change:
    return lambda run: (run / name).unlink()


def _lock(run: Path) -> None:
    run.with_name("thesis.txt").write_text("mine")
    (run / ".lock").unlink(missing_ok=True)
    (run / ".lock").symlink_to("../thesis.txt")


def _edited(old: str, new: str) -> Change:
    def change(run: Path) -> None:
        text = (run / "MANIFEST.json").read_text()
        (run / "MANIFEST.json").write_text(text.replace(old, new, 1))

    return change


def _nested(name: str) -> Change:
    return lambda run: (run / name).write_text('{"a": ' + "[" * 100_000)


def _only_a_folder(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def _a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("mine")


def _folder_for_manifest(run: Path) -> None:
    (run / "MANIFEST.json").unlink()
    (run / "MANIFEST.json").mkdir()


def _forge(run: Path, name: str, content: bytes, old: str | None = None) -> None:
    """Record a file under a name, in place of another, in a manifest whose own digest holds."""
    manifest = read_manifest(run)
    recorded = manifest.files[old or name]
    files = {path: entry for path, entry in manifest.files.items() if path != old}
    files[name] = FileEntry(sha256=sha256_bytes(content), bytes=len(content), parents=recorded.parents)
    for path, entry in files.items():
        if name in entry.parents:
            parents = {**entry.parents, name: files[name].sha256}
            files[path] = entry.model_copy(update={"parents": parents})
    write_manifest(run, manifest.model_copy(update={"files": files}))


def _content(name: str, content: bytes) -> Change:
    def change(run: Path) -> None:
        (run / name).write_bytes(content)
        _forge(run, name, content)

    return change


def _changed(name: str, change: Callable[[dict[str, object]], object]) -> Change:
    """A JSON document that says something else, and is recorded so."""

    def plant(run: Path) -> None:
        document = json.loads((run / name).read_text())
        change(document)
        _content(name, json.dumps(document).encode())(run)

    return plant


def _outside(run: Path) -> None:
    secret = b"not of this run"
    run.with_name("secret").write_bytes(secret)
    _forge(run, "../secret", secret, old="exports/student.onnx")


def _outside_by_artefacts(run: Path) -> None:
    text = (run / "artefacts.json").read_text().replace("exports/student.onnx", "exports/../../secret")
    _content("artefacts.json", text.encode())(run)


_FORGED: dict[str, Change] = {
    "a manifest that leads out of the run": _outside,
    "an artefact that leads out of the run": _outside_by_artefacts,
    "artefacts.json of another version": _changed("artefacts.json", lambda found: found.update(schema_version=99)),
    "artefacts.json nested deeply": _content("artefacts.json", b'{"a": ' + b"[" * 100_000),
    "recipe.toml that is not UTF-8": _content("recipe.toml", b'name = "\xff"\n'),
    "recipe.toml of brackets": _content("recipe.toml", b"x = " + b"[" * 10_000),
}


_BASELINES: dict[str, Change] = {
    "is no run": _only_a_folder,
    "is a file": _a_file,
    "is not there": shutil.rmtree,
    "has links": _link("exports"),
    "leads out of its folder": _outside,
    "has predictions that are none": _content("predictions.safetensors", b"nothing of the kind"),
    "has predictions whose header has no end": _content("predictions.safetensors", b"\xff" * 7 + b"\x7f{}"),
    "has a student that is none": _content("exports/student.onnx", b"\x08\x0a" + bytes(range(256)) * 4),
    "has documents of another version": _changed("artefacts.json", lambda found: found.update(schema_version=99)),
}


def _baseline(title: str, change: Change) -> Case:
    def plant(place: Place) -> Call:
        place.run()
        change(place.run("old"))
        return Call(words=("gate", "run", "--baseline", "old"))

    writes = ("run/junit.xml", "run/MANIFEST.json")
    return Case(kind="gate", name=f"--baseline {title}", plant=plant, codes=_REFUSED, lines=4, writes=writes)


def _partial(place: Place) -> Call:
    root = place.run()
    for name in (".gate.json.0011aabb.partial", "exports/.student.onnx.0011aabb.partial"):
        (root / name).write_bytes(b"half")
    return Call(words=("gate", "run"))


def _stale(step: str, command: str, named: str) -> Case:
    """One step that was made anew, as its file shows, and a command that must not follow."""
    file = {"train": "training.json", "split": "split.json", "export": "artefacts.json"}[step]

    def change(run: Path) -> None:
        content = (run / file).read_bytes().rstrip() + b" \n"
        (run / file).write_bytes(content)
        manifest = read_manifest(run)
        entry = FileEntry(sha256=sha256_bytes(content), bytes=len(content), parents=manifest.files[file].parents)
        write_manifest(run, manifest.model_copy(update={"files": {**manifest.files, file: entry}}))

    says = f"run `ecd-deploy {named} run`" if named else "derived from another"
    codes = _WRONG if named else _BAD
    return _case(f"{command}: after another {step}", command, change, codes=codes, says=says)


def _signal(command: str, forwards: int, *words: str) -> Case:
    """SIGTERM after so many forwards of the student; of none, a moment after the start."""

    def plant(place: Place) -> Call:
        place.write("my_students.py", SOURCE.read_bytes())
        if command != "train":
            shutil.copytree(place.finished.with_name("signalled"), place.folder / "run")
        counted = place.write("forwards", b"")
        stop_when = (lambda: counted.stat().st_size >= forwards) if forwards else _after(_SECONDS_TO_VERIFY)
        return Call(words=(command, "run", *words), stop_when=stop_when)

    student = settings("student.name=my_students:signalled") if command == "train" else ()
    words = (*words, *student)
    return Case(
        kind="signal",
        name=f"SIGTERM in {command}, {f'after forward {forwards}' if forwards else 'soon'}",
        plant=plant,
        codes=_STOPPED,
        says="Stopped: SIGTERM",
        writes=("forwards", "run", "run/*") if command in {"train", "split", "export"} else ("forwards",),
        seconds=60.0,
        afterwards=("train", "run", "--resume") if command == "train" else ("verify", "run"),
        check=_whole,
    )


def _after(seconds: float) -> Callable[[], bool]:
    """Holds so long after it is first asked."""
    asked: list[float] = []

    def passed() -> bool:
        asked.append(time.monotonic())
        return asked[-1] > asked[0] + seconds

    return passed


def _whole(folder: Path, _ended: Ended) -> str | None:
    return "half-written files are left" if list(folder.rglob("*.partial")) else None


def _telemetry(command: str) -> Case:
    """In a process of its own, with a home of its own, under strace where that is installed."""
    strace = shutil.which("strace")
    trace = (strace, "-f", "-e", "trace=socket,connect", "-o", "trace") if strace else ()

    def plant(place: Place) -> Call:
        place.run()
        return Call(words=(command, "run"), program=(*trace, *FRESH))

    def check(folder: Path, _ended: Ended) -> str | None:
        text = (folder / "trace").read_text(errors="replace") if trace else ""
        return "a socket to the network" if "AF_INET" in text else None

    return Case(
        kind="telemetry",
        name=f"{command}: nothing in the home directory, no socket",
        plant=plant,
        codes=frozenset({0, 3}),
        lines=4,
        writes=("trace", "run", "run/*"),
        check=check,
    )


def prepare(folder: Path) -> Path:
    """Make the finished run, and beside it one of a student that takes its time."""
    started = time.monotonic()
    place = Place(folder, folder / "finished")
    place.write("my_students.py", SOURCE.read_bytes())
    blind = settings("gate.min_top1=0.0", "gate.max_drop=1.0", "gate.p90_ms_max=1000.0")
    for name, more in (
        ("finished", settings(FORMATS)),
        ("signalled", settings("student.name=my_students:signalled", "method.stages=[2]", 'export.formats=["onnx"]')),
    ):
        ended = run(Call(words=("run", "digits", "--out", name, *settings(*TINY), *blind, *more)), folder, 240.0)
        if ended.code not in {0, 3}:
            raise RuntimeError(f"the run to start from ended with {ended.code}: {ended.err}")
    print(f"two runs to start from: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return place.finished
