"""A run is what its manifest says, or `verify` names what is not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from ecd_deploy.errors import DigestError, UsageError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.pipelines.sign import check_signature, sign
from ecd_deploy.pipelines.verify import Difference, verify
from tests.conftest import run_command


@pytest.fixture
def run_copy(finished_run: tuple[Path, object], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run[0], tmp_path / "run"))


def forge(root: Path, name: str, content: bytes) -> None:
    """Change a file and its record alike, as somebody would who knows of the manifest."""
    (root / name).write_bytes(content)
    manifest = json.loads((root / "MANIFEST.json").read_text())
    manifest["files"][name] |= {"sha256": sha256_bytes(content), "bytes": len(content)}
    (root / "MANIFEST.json").write_text(json.dumps(manifest))


def test_a_finished_run_is_whole_and_made_again_byte_for_byte(finished_run: tuple[Path, object]) -> None:
    ended = run_command(["verify", finished_run[0], "--reproduce"], cwd=finished_run[0].parent)
    assert ended.code == 0, ended.err
    assert "made again byte for byte" in ended.out


def test_every_kind_of_difference_is_listed(run_copy: Path) -> None:
    (run_copy / "split.json").unlink()
    (run_copy / "exports/extra.onnx").write_bytes(b"teacher")
    onnx = run_copy / "exports/student.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1] + b"\xff")
    report = run_copy / "report.md"
    report.write_bytes(report.read_bytes() + b"!")
    problems = {entry.file: entry.problem for entry in verify(run_copy)}
    assert problems.keys() == {"split.json", "exports/extra.onnx", "exports/student.onnx", "report.md"}
    assert problems["split.json"] == "is missing"
    assert "not recorded" in problems["exports/extra.onnx"]
    assert "SHA-256 is" in problems["exports/student.onnx"]
    assert "bytes, recorded were" in problems["report.md"]
    ended = run_command(["verify", run_copy], cwd=run_copy.parent)
    assert ended.code == 4
    assert "exports/extra.onnx: is not recorded" in ended.err


def test_a_forged_manifest_does_not_hide_another_student(run_copy: Path) -> None:
    content = bytearray((run_copy / "split.safetensors").read_bytes())
    content[-1] ^= 0x10
    forge(run_copy, "split.safetensors", bytes(content))
    (difference,) = verify(run_copy)
    assert difference.file == "split.json"
    assert "is not the tensor that was proved" in difference.problem


def test_an_artefact_of_another_student_is_found(run_copy: Path) -> None:
    content = (run_copy / "exports/student.safetensors").read_bytes()
    digest = json.loads((run_copy / "artefacts.json").read_text())["student_digest"].encode()
    forge(run_copy, "exports/student.safetensors", content.replace(digest, b"0" * 64))
    wrong = Difference("exports/student.safetensors", "was made from another student than the proved one")
    assert verify(run_copy) == (wrong,)


def test_a_forged_artefact_is_not_made_again(run_copy: Path) -> None:
    content = bytearray((run_copy / "exports/student.safetensors").read_bytes())
    content[-1] ^= 0x10
    forge(run_copy, "exports/student.safetensors", bytes(content))
    ended = run_command(["verify", run_copy, "--reproduce"], cwd=run_copy.parent)
    assert ended.code == 4
    assert "student.safetensors: SHA-256 is" in ended.err


def test_the_manifest_says_what_each_artefact_was_made_from(finished_run: tuple[Path, object]) -> None:
    manifest = json.loads((finished_run[0] / "MANIFEST.json").read_text())
    digest = json.loads((finished_run[0] / "split.json").read_text())["student_digest"]
    assert manifest["versions"]["onnxruntime"].startswith("1.")
    for name in ("exports/student.onnx", "exports/student.safetensors", "MODEL_CARD.md", "bom.cdx.json"):
        assert manifest["files"][name]["parents"]["student"] == digest


def test_the_model_card_gives_the_figures(finished_run: tuple[Path, object]) -> None:
    card = (finished_run[0] / "MODEL_CARD.md").read_text()
    validation = json.loads((finished_run[0] / "validation.json").read_text())
    counted = validation["onnx_top1"]["candidate"]
    assert card.startswith("# digits\n")
    assert f"{100 * counted['correct'] / counted['images']:.2f} % of {counted['images']}" in card
    assert json.loads((finished_run[0] / "artefacts.json").read_text())["student_digest"] in card


def test_the_bill_of_materials_is_valid_cyclonedx(finished_run: tuple[Path, object]) -> None:
    text = (finished_run[0] / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert bill["metadata"]["component"]["type"] == "machine-learning-model"
    hashes = {part["name"]: part["hashes"] for part in bill["components"] if part["type"] == "file"}
    manifest = json.loads((finished_run[0] / "MANIFEST.json").read_text())["files"]
    assert hashes["exports/student.onnx"][0]["content"] == manifest["exports/student.onnx"]["sha256"]


def make_key(folder: Path, name: str) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def test_a_signature_holds_until_a_file_changes(run_copy: Path, tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "own")
    _, other = make_key(tmp_path, "other")
    with pytest.raises(DigestError, match="is not signed"):
        check_signature(run_copy, public)
    ended = run_command(["sign", run_copy, "--key", private], cwd=tmp_path)
    assert ended.code == 0, ended.err
    ended = run_command(["verify", run_copy, "--public-key", public], cwd=tmp_path)
    assert (ended.code, "the signature holds" in ended.out) == (0, True), ended.err
    with pytest.raises(DigestError, match="does not hold"):
        check_signature(run_copy, other)
    forge(run_copy, "report.md", b"all is well")
    assert verify(run_copy) == ()
    with pytest.raises(DigestError, match="does not hold"):
        check_signature(run_copy, public)


def test_what_is_no_key_is_refused(run_copy: Path) -> None:
    with pytest.raises(UsageError, match="cannot sign with"):
        sign(run_copy, run_copy / "recipe.toml")
