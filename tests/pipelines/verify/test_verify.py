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
from ecd_deploy.pipelines.verify.sign import check_signature, sign
from ecd_deploy.pipelines.verify.verify import Difference, verify
from tests.commands import run_command
from tests.forging import forge_entry


@pytest.fixture
def run_copy(finished_run: tuple[Path, object], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run[0], tmp_path / "run"))


def forge(root: Path, name: str, content: bytes) -> None:
    """Change a file and its record alike."""
    (root / name).write_bytes(content)
    forge_entry(root, name)


@pytest.mark.slow
def test_a_finished_run_is_whole_and_made_again_byte_for_byte(finished_run: tuple[Path, object]) -> None:
    ended = run_command(["verify", finished_run[0], "--reproduce"], cwd=finished_run[0].parent)
    assert ended.code == 0, ended.err
    assert "exporting again gives the same bytes" in ended.out


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
    assert "bytes instead of" in problems["report.md"]
    ended = run_command(["verify", run_copy], cwd=run_copy.parent)
    assert ended.code == 4
    assert "exports/extra.onnx: is not recorded" in ended.err


def test_a_changed_manifest_is_refused(run_copy: Path) -> None:
    path = run_copy / "MANIFEST.json"
    whole = path.read_bytes()
    version = whole.index(b'"torch": "') + len(b'"torch": "')
    for changed in (
        whole[:version] + bytes([whole[version] ^ 1]) + whole[version + 1 :],
        whole.replace(b"  ", b"\t", 1),
        json.dumps(json.loads(whole)).encode(),
        whole[:-1],
    ):
        path.write_bytes(changed)
        with pytest.raises(DigestError, match=r"MANIFEST.json was changed"):
            verify(run_copy)
    ended = run_command(["verify", run_copy], cwd=run_copy.parent)
    assert (ended.code, "its own digest does not match" in ended.err) == (4, True)


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
    wrong = Difference("exports/student.safetensors", "comes from another student than the proved one")
    assert verify(run_copy) == (wrong,)


def test_a_forged_artefact_is_not_made_again_and_all_others_are(run_copy: Path) -> None:
    content = bytearray((run_copy / "exports/student.safetensors").read_bytes())
    content[-1] ^= 0x10
    forge(run_copy, "exports/student.safetensors", bytes(content))
    ended = run_command(["verify", run_copy, "--reproduce"], cwd=run_copy.parent)
    assert ended.code == 4
    assert "student.safetensors: SHA-256 is" in ended.err
    assert ended.err.count("SHA-256 is") == 1


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


@pytest.mark.needs("model_signing")
def test_a_signature_holds_until_a_file_changes(run_copy: Path, tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "own")
    _, other = make_key(tmp_path, "other")
    with pytest.raises(DigestError, match="is not signed"):
        check_signature(run_copy, public)
    ended = run_command(["sign", run_copy, "--key", private], cwd=tmp_path)
    assert ended.code == 0, ended.err
    ended = run_command(["verify", run_copy, "--public-key", public], cwd=tmp_path)
    assert (ended.code, "the signature is valid" in ended.out) == (0, True), ended.err
    with pytest.raises(DigestError, match="is not valid"):
        check_signature(run_copy, other)
    forge(run_copy, "report.md", b"all is well")
    assert verify(run_copy) == ()
    with pytest.raises(DigestError, match="is not valid"):
        check_signature(run_copy, public)


def make_authority(folder: Path, name: str) -> tuple[Path, Path]:
    """Key and certificate of an authority."""
    private, _ = make_key(folder, name)
    certificate = folder / f"{name}.crt"
    command: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-key",
        private,
        "-subj",
        f"/CN={name}",
        "-days",
        "30",
        "-out",
        certificate,
    ]
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    subprocess.run([*command, *extensions], check=True, capture_output=True)
    return private, certificate


def make_certificate(folder: Path, name: str, by: tuple[Path, Path], usage: str) -> tuple[Path, Path]:
    """Key and certificate of somebody, by an authority."""
    private, _ = make_key(folder, name)
    certificate, extensions = folder / f"{name}.crt", folder / f"{name}.txt"
    extensions.write_text(f"basicConstraints=critical,CA:{'TRUE' if usage == 'keyCertSign' else 'FALSE'}\n"
                          f"keyUsage=critical,{usage}\n")  # fmt: skip
    command: list[str | Path] = [
        "openssl",
        "x509",
        "-req",
        "-CA",
        by[1],
        "-CAkey",
        by[0],
        "-CAcreateserial",
        "-days",
        "30",
    ]
    request = subprocess.run(
        ["openssl", "req", "-new", "-key", private, "-subj", f"/CN={name}"], check=True, capture_output=True
    )
    command += ["-extfile", extensions, "-out", certificate]
    subprocess.run(command, input=request.stdout, check=True, capture_output=True)
    return private, certificate


@pytest.mark.needs("model_signing")
def test_a_certificate_signs_and_its_authority_verifies(run_copy: Path, tmp_path: Path) -> None:
    authority, stranger = make_authority(tmp_path, "authority"), make_authority(tmp_path, "stranger")
    key, certificate = make_certificate(tmp_path, "signer", authority, "digitalSignature")
    ended = run_command(["sign", run_copy, "--key", key, "--certificate", certificate], cwd=tmp_path)
    assert ended.code == 0, ended.err
    ended = run_command(["verify", run_copy, "--chain", authority[1]], cwd=tmp_path)
    assert (ended.code, "the signature is valid" in ended.out) == (0, True), ended.err
    with pytest.raises(DigestError, match="is not valid"):
        check_signature(run_copy, chain=[stranger[1]])
    forge(run_copy, "report.md", b"all is well")
    with pytest.raises(DigestError, match="is not valid"):
        check_signature(run_copy, chain=[authority[1]])


@pytest.mark.needs("model_signing")
def test_a_certificate_by_way_of_another_authority_verifies_against_the_root(run_copy: Path, tmp_path: Path) -> None:
    root = make_authority(tmp_path, "root")
    between = make_certificate(tmp_path, "between", root, "keyCertSign")
    key, certificate = make_certificate(tmp_path, "signer", between, "digitalSignature")
    sign(run_copy, key, certificate, [between[1]])
    check_signature(run_copy, chain=[root[1]])
    sign(run_copy, key, certificate)
    with pytest.raises(DigestError, match="is not valid"):
        check_signature(run_copy, chain=[root[1]])


@pytest.mark.needs("model_signing")
def test_a_certificate_that_may_not_sign_or_is_of_another_key_is_refused(run_copy: Path, tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "authority")
    key, certificate = make_certificate(tmp_path, "reader", authority, "keyAgreement")
    sign(run_copy, key, certificate)
    with pytest.raises(DigestError, match="cannot be used for signing"):
        check_signature(run_copy, chain=[authority[1]])
    with pytest.raises(UsageError, match="cannot sign with"):
        sign(run_copy, authority[0], certificate)


@pytest.mark.needs("model_signing")
def test_what_is_no_key_is_refused(run_copy: Path) -> None:
    with pytest.raises(UsageError, match="cannot sign with"):
        sign(run_copy, run_copy / "recipe.toml")
