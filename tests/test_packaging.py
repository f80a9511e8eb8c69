from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

import ecd_deploy

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Folder of the source tree, and where its files belong in the wheel.
PACKAGE_FOLDERS = {
    "ecd_deploy": "ecd_deploy",
    "exporters": "ecd_deploy/exporters",
    "pipelines": "ecd_deploy/pipelines",
}
PUBLIC_NAMES = {
    "ArtefactList": "ecd_deploy.pipelines.record.artefacts",
    "AugmentConfig": "ecd_deploy.recipe.augment",
    "BatchEnded": "ecd_deploy.training.progress",
    "DataConfig": "ecd_deploy.recipe.data",
    "DynamicConv2d": "ecd_deploy.distill",
    "ECDModel": "ecd_deploy.distill",
    "EpochEnded": "ecd_deploy.training.progress",
    "Evaluated": "ecd_deploy.pipelines.evaluate.evaluate",
    "Event": "ecd_deploy.pipelines.record.progress",
    "ExportConfig": "ecd_deploy.recipe.export",
    "GateConfig": "ecd_deploy.recipe.gate",
    "GateReport": "ecd_deploy.pipelines.gate.decide",
    "InputConfig": "ecd_deploy.recipe.input",
    "MethodConfig": "ecd_deploy.recipe.method",
    "Prediction": "ecd_deploy.pipelines.evaluate.predict",
    "Profile": "ecd_deploy.pipelines.record.profile",
    "ProfileConfig": "ecd_deploy.recipe.profile",
    "Recipe": "ecd_deploy.recipe.recipe",
    "Rehearsal": "ecd_deploy.pipelines.rehearse.result",
    "Rehearsed": "ecd_deploy.pipelines.record.progress",
    "RunResults": "ecd_deploy.pipelines.report.results",
    "SplitProof": "ecd_deploy.split",
    "SplitStudent": "ecd_deploy.split",
    "StepEnded": "ecd_deploy.pipelines.record.progress",
    "StepStarted": "ecd_deploy.pipelines.record.progress",
    "StoppedEarly": "ecd_deploy.training.progress",
    "StudentConfig": "ecd_deploy.recipe.student",
    "TeacherOptions": "ecd_deploy.distill",
    "TrainConfig": "ecd_deploy.recipe.train",
    "TrainingOutputs": "ecd_deploy.distill",
    "TrainingResult": "ecd_deploy.training",
    "TrainingStarted": "ecd_deploy.training.progress",
    "Validation": "ecd_deploy.pipelines.record.validation",
    "build_student": "ecd_deploy.models",
    "build_teacher": "ecd_deploy.distill",
    "evaluate": "ecd_deploy.pipelines.evaluate.evaluate",
    "export": "ecd_deploy.core",
    "gate": "ecd_deploy.core",
    "load_recipe": "ecd_deploy.recipe.recipe",
    "predict": "ecd_deploy.pipelines.evaluate.predict",
    "profile": "ecd_deploy.core",
    "rehearse": "ecd_deploy.core",
    "report": "ecd_deploy.core",
    "run": "ecd_deploy.core",
    "split_run": "ecd_deploy.core",
    "split_student": "ecd_deploy.split",
    "train": "ecd_deploy.core",
    "validate": "ecd_deploy.core",
}
HEAVY_LIBRARIES = {
    "PIL",
    "accelerate",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "scipy",
    "sklearn",
    "tensorboard",
    "torch",
    "torchvision",
}


def source_files() -> dict[str, Path]:
    """Every file that the wheel must hold, by its path in the wheel."""
    files = {}
    for folder, target in PACKAGE_FOLDERS.items():
        for directory, names, file_names in os.walk(ROOT / folder):
            names[:] = [name for name in names if name != "__pycache__" and not (Path(directory) / name).is_symlink()]
            for name in file_names:
                path = Path(directory) / name
                files[f"{target}/{path.relative_to(ROOT / folder).as_posix()}"] = path
    return files


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from nothing but that sdist."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in (*PACKAGE_FOLDERS, "tests"):
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    output = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return output


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> zipfile.ZipFile:
    (path,) = distributions.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*command, "--target", str(site), str(wheel.filename)], check=True)
    return site


def run_python(code: str, *, cwd: Path, path: Path) -> str:
    """What the code prints in a new interpreter that finds its packages in `path` first."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_wheel_holds_every_file_of_the_three_folders_and_no_other(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert packed == set(source_files())


def test_wheel_holds_what_is_not_code(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()

    assert "ecd_deploy/py.typed" in names
    assert {"ecd_deploy/recipe/recipes/digits.toml", "ecd_deploy/recipe/recipes/cifar100-resnet20.toml"} <= {*names}


def test_repository_holds_text_and_one_picture() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    files = [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]
    binaries = [path for path in files if b"\0" in path.read_bytes()]
    assert [path.relative_to(ROOT).as_posix() for path in binaries] == ["docs/report.png"]  # for the README
    assert binaries[0].stat().st_size < 100_000
    assert len(files) > 500


def test_wheel_has_one_top_level_package_and_no_tests(wheel: zipfile.ZipFile) -> None:
    top_level = {name.split("/")[0] for name in wheel.namelist()}

    assert top_level == {"ecd_deploy", f"ecd_deploy-{PROJECT['version']}.dist-info"}
    assert not [name for name in wheel.namelist() if "test" in Path(name).name]


def test_wheel_carries_the_licence_and_the_command(wheel: zipfile.ZipFile) -> None:
    information = f"ecd_deploy-{PROJECT['version']}.dist-info"
    entry_points = ConfigParser()
    entry_points.read_string(wheel.read(f"{information}/entry_points.txt").decode())

    assert wheel.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert dict(entry_points["console_scripts"]) == {"ecd-deploy": "ecd_deploy.cli:main"}


def test_sdist_holds_no_links(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()

    assert {f"ecd_deploy-{PROJECT['version']}/{folder}" for folder in PACKAGE_FOLDERS} <= {m.name for m in members}
    assert not [member.name for member in members if member.issym() or member.islnk()]


def test_users_own_folders_do_not_shadow_the_packages(installed: Path, tmp_path: Path) -> None:
    for name in ("pipelines", "exporters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('this is the user\\'s own package')")
    code = (
        "import ecd_deploy, ecd_deploy.exporters, ecd_deploy.pipelines\n"
        "print(ecd_deploy.__file__, ecd_deploy.exporters.__file__, ecd_deploy.pipelines.__file__)"
    )

    found = run_python(code, cwd=tmp_path, path=installed).split()

    assert found == [str(installed / f"{target}/__init__.py") for target in PACKAGE_FOLDERS.values()]


def test_installed_command_finds_its_recipes(installed: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['ecd-deploy', 'recipes']; from ecd_deploy.cli import main; main()"

    printed = run_python(code, cwd=tmp_path, path=installed)

    assert "digits" in printed
    assert "cifar100-resnet20" in printed


def test_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ecd_deploy", "run", "no-such-recipe"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "no-such-recipe" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["ecd_deploy", "ecd_deploy.cli", "ecd_deploy.recipe.recipe"])
def test_import_loads_no_heavy_library(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print(*(name for name in sys.modules if '.' not in name))"

    loaded = set(run_python(code, cwd=tmp_path, path=ROOT).split())

    assert "ecd_deploy" in loaded
    assert loaded.isdisjoint(HEAVY_LIBRARIES)


@pytest.mark.parametrize(("name", "home"), PUBLIC_NAMES.items())
def test_public_name_is_that_of_its_module(name: str, home: str) -> None:
    assert getattr(ecd_deploy, name) is getattr(sys.modules[home], name)


def test_public_names_are_declared_and_listed() -> None:
    assert set(ecd_deploy.__all__) == {*PUBLIC_NAMES, "__version__"}
    assert set(ecd_deploy.__all__) <= set(dir(ecd_deploy))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ecd_deploy' has no attribute 'no_such_name'"):
        _ = ecd_deploy.no_such_name  # type: ignore[attr-defined]


def test_version_is_that_of_the_project() -> None:
    assert ecd_deploy.__version__ == PROJECT["version"] == importlib.metadata.version("ecd-deploy")


def test_changelog_and_citation_are_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert (
        re.findall(r"^## \[(.+?)\] - (?:unreleased|\d{4}-\d{2}-\d{2})$", changelog, re.MULTILINE)[0]
        == PROJECT["version"]
    )
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
