from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.images.archive import Layer, read_image, readable


def packed(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        folder = tarfile.TarInfo("./usr")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return buffer.getvalue()


def docker_archive(path: Path, *layers: Mapping[str, bytes]) -> Path:
    """As buildah and docker write it: steps without a layer, and a layer that is named by a link."""
    history = [{"created_by": f"/bin/sh -c RUN step {number}"} for number in range(len(layers))]
    history.insert(1, {"created_by": "/bin/sh -c #(nop) USER 1000:1000", "empty_layer": True})  # type: ignore[dict-item]
    config = {
        "User": "1000:1000",
        "Entrypoint": ["python3", "/opt/runner.py"],
        "Env": ["PATH=/bin:/opt/bin", "FLAGS=a=b"],
        "Labels": {"title": "image"},
        "Healthcheck": {"Test": ["CMD", "true"]},
    }
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "Layers": names}]
    with tarfile.open(path, "w") as archive:
        for name, content in {
            "manifest.json": json.dumps(manifest).encode(),
            "config.json": json.dumps({"config": config, "history": history}).encode(),
            **{f"{number}.tar": packed(layer) for number, layer in enumerate(layers)},
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for number, name in enumerate(names):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"../{number}.tar"
            archive.addfile(link)
    return path


def test_layers_are_measured_unpacked_and_the_configuration_is_read(tmp_path: Path) -> None:
    image = read_image(docker_archive(tmp_path / "image.tar", {"bin/sh": b"1234"}, {"opt/a": b"12", "./opt/b": b"3"}))
    assert image.layers == (Layer("base", 1, 4), Layer("RUN step 1", 2, 3))
    assert image.bytes == 7
    assert image.left_behind == ()
    assert image.configuration.environment == {"PATH": "/bin:/opt/bin", "FLAGS": "a=b"}
    assert image.configuration.healthcheck == ("CMD", "true")
    assert (image.configuration.user, image.configuration.folder) == ("1000:1000", "/")


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "opt/lib/ecd_deploy/.env",
        "work/.git/config",
        "wheels/ecd_deploy.whl",
        "source/pyproject.toml",
        "tmp/constraints.txt",
        "var/lib/apt/lists/packages",
        "usr/local/share/ca-certificates/build.crt",
        "opt/ecd-deploy/lib/python3.11/site-packages/pip/__init__.py",
    ],
)
def test_what_must_not_be_in_an_image_is_found_also_below_a_layer_that_removes_it(tmp_path: Path, path: str) -> None:
    removed = {str(Path(path).with_name(f".wh.{Path(path).name}")): b""}
    image = read_image(docker_archive(tmp_path / "image.tar", {"bin/sh": b"1"}, {path: b"secret"}, removed))
    assert image.left_behind[0] == path


def test_the_base_may_have_lists_of_its_own_but_no_secret(tmp_path: Path) -> None:
    base = {"var/lib/apt/lists/packages": b"1", "root/.env": b"2"}
    assert read_image(docker_archive(tmp_path / "image.tar", base)).left_behind == ("root/.env",)


def test_an_instruction_reads_as_in_the_dockerfile() -> None:
    assert readable("/bin/sh -c #(nop) COPY dir:" + "0" * 64 + " in /opt ") == "COPY ... in /opt"
    assert readable("|2 BASE=host/base:1 VERSION=1 /bin/sh -c apt-get   update") == "apt-get update"
