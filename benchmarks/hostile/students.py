"""Students that fail, or must not, before the first step of a training."""

from __future__ import annotations

from pathlib import Path

from benchmarks.hostile.case import SECONDS_OF_A_RUN, Call, Case, Place, settings

SOURCE = Path(__file__).with_name("planted_students.py")
_MODULE = "my_students"
_RECIPE = settings(
    "method.stages=[2]", "method.kernels=2", 'export.formats=["safetensors", "onnx"]', "data.train_limit=96"
)
_ENDINGS = "data.test_limit=60", "train.epochs=1", "profile.min_seconds=0.05", "profile.max_seconds=0.5"
_REFUSED = frozenset({2})
_WORKS = frozenset({0, 1, 3})
"""Of `run`: a student that was hardly trained fails its gate."""

_SAYS = {
    "batch": "depend on the other images of its batch|keeps state",
    "random": "vary by themselves|random",
    "state": "keeps (a )?state|not in a fresh build",
    "weights": "is not initialised|float|meta device|trainable|not depend|not finite|registered",
    "output": "returns|logits|gradient",
    "gradient": "gradient",
    "forward": "",
    "hook": "hook",
    "holds": "cannot be copied",
    "operator": "format onnx cannot hold|cannot express",
    "low": "by itself",
}
"""By the first word of a factory's name, what its refusal says."""
_BOTH = {
    "weights_partly_frozen", "weights_tied", "output_probabilities", "forward_prints", "forward_warns",
    "branch_on_values", "branch_on_a_number", "loop_on_values", "mask_of_values", "operator_pool", "operator_fft",
    "hook_of_state", "hook_on_gradient", "holds_thread", "output_half",
}  # fmt: skip
"""Students that a rehearsal may take, or refuse in a line that says why."""
_IMPORTS = {
    "no such factory": "absent",
    "no function": "not_callable",
    "gives no module": "no_module",
    "other arguments": "wrong_arguments",
    "raises": "factory_raises",
    "exits": "factory_exits",
}
_FILES = {
    "raises when it is imported": "raise OSError('libfoo.so: cannot open')\n",
    "exits when it is imported": "import sys\nsys.exit(0)\n",
    "is no Python": "def student(:\n",
    "is nested too deeply": "x = " + "(" * 3000,
    "imports what is not installed": "import not_installed_anywhere\n",
    "imports itself": "from my_students import student\n",
    "holds a null byte": "x = 1\0\n",
    "is not UTF-8": "x = '\udce9'\n",
}


def cases() -> list[Case]:
    """Each student by `rehearse`, those that must work by `run`, and files that cannot be imported."""
    names = [line.split("=")[0].split("(")[0].removeprefix("def ").strip() for line in _definitions()]
    faulty = [name for name in names if name.split("_")[0] in {*_SAYS, "branch", "loop", "mask"}]
    works = [name for name in names if name.startswith("works_") or name == "sound"]
    return [
        *(_rehearsed(name) for name in faulty),
        *(_run(name) for name in works),
        *(_named(title, name) for title, name in _IMPORTS.items()),
        *(_file(title, text) for title, text in _FILES.items()),
    ]


def _definitions() -> list[str]:
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line[:1].isalpha() and (" = " in line or line.startswith("def "))]


def _rehearsed(name: str) -> Case:
    return Case(
        kind="student",
        name=name.replace("_", " "),
        plant=lambda place: _call(place, name),
        codes=_REFUSED | ({0} if name in _BOTH else set()),
        says="" if name in _BOTH else _SAYS.get(name.split("_")[0], ""),
        lines=4 if name in _BOTH else 2,  # torch may warn of what such a forward does, beside its line of code
    )


def _run(name: str) -> Case:
    return Case(
        kind="student",
        name=name.replace("_", " "),
        plant=lambda place: _call(place, name, ("run", "digits", "--out", "run", *settings(*_ENDINGS))),
        codes=_WORKS,
        says="validation top-1",
        seconds=SECONDS_OF_A_RUN,
        lines=3,
        writes=("run", "run/*"),
    )


def _named(title: str, name: str) -> Case:
    return Case(kind="student", name=f"factory: {title}", plant=lambda place: _call(place, name), codes=_REFUSED)


def _file(title: str, text: str) -> Case:
    def plant(place: Place) -> Call:
        call = _call(place, "student")
        place.write(f"{_MODULE}.py", text.encode(errors="surrogateescape"))
        return call

    return Case(kind="student", name=f"file: {title}", plant=plant, codes=_REFUSED)


def _call(place: Place, name: str, words: tuple[str, ...] = ("rehearse", "digits")) -> Call:
    place.write(f"{_MODULE}.py", SOURCE.read_bytes())
    return Call(words=(*words, *_RECIPE, *settings(f"student.name={_MODULE}:{name}")))
