"""Image folders as users and archives leave them: files no decoder likes, odd names, links, levels too many."""

from __future__ import annotations

import io
import os
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import Ended
from benchmarks.hostile.case import Call, Case, Place, settings

_CLASSES = ("cat", "dog", "fox")
_RECIPE = settings(
    *("data.source=imagefolder", "data.path=images", "data.cache_dir=cache", "data.validation_fraction=0.34"),
    *("method.name=plain", "data.image_size=8", "train.epochs=1", "train.batch_size=8", "train.warmup_epochs=0.0"),
)
_REFUSED, _WORKS = frozenset({4}), frozenset({0})
_CUT = ("GIF", "AVIF", "JPEG2000", "DDS", "BLP", "TIFF", "WEBP", "JPEG", "PNG", "ICO", "PPM", "BMP")

Change = Callable[[Path], object]


def cases() -> list[Case]:
    """By `train`, without a rehearsal: the images are read first, and what is refused makes no run directory."""
    return [
        *(_case(f"{name} cut in the middle", _first(_cut(name)), says=_listed(1)) for name in _CUT),
        *(_case(f"{name} cut after its header", _first(_cut(name, 0.12)), says=_listed(1)) for name in _CUT[:5]),
        *(
            _case(f"{name} with damaged bytes", _first(_damaged(name)), codes=_REFUSED | _WORKS, says="")
            for name in _CUT[:8]
        ),
        _case("five files of five formats cut", _five, says=_listed(5)),
        _case("empty file", _first(b""), says=_listed(1)),
        _case("HTML page named .jpg", _first(b"<html>404 not found</html>", ".jpg"), says=_listed(1)),
        _case("Git LFS pointer", _first(b"version https://git-lfs.github.com/spec/v1\n"), says=_listed(1)),
        _case("PNG of 60000 x 60000", _first(_bomb()), says=_listed(1)),
        _case("pipe named .png", _pipe, says=_listed(1)),
        _case("link to nothing", lambda root: _replace(root).symlink_to("nowhere.png"), says=_listed(1)),
        _case("link to itself", lambda root: _replace(root).symlink_to("0.png"), says=_listed(1)),
        *(_case(f"EXIF: {name}", _first(_exif(data), ".jpg"), codes=_WORKS) for name, data in _EXIF.items()),
        _case("PNG with 2 MB of text", _first(_with_chunk(b"tEXt", b"a\0" + bytes([65]) * 2_000_000)), codes=_WORKS),
        _case("PNG with a compressed text bomb", _first(_with_chunk(b"zTXt", _text_bomb())), codes=_WORKS),
        _case("PNG with a damaged colour profile", _first(_with_chunk(b"iCCP", b"p\0\0nonsense")), codes=_WORKS),
        _case("PNG with a damaged EXIF chunk", _first(_with_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff")), codes=_WORKS),
        _case("class that is not UTF-8", _rename(b"d\xf6g"), says=r"d\\udcf6g.* not UTF-8"),
        _case("class with a line break", _rename(b"d\ng"), says="control characters"),
        _case("class with a terminal escape", _rename(b"d\x1b[2Jg"), says="control characters"),
        _case("class that turns the line's direction", _rename("d\u202eg".encode()), codes=_WORKS),
        _case("class of brackets", _rename(b"[red]dog"), codes=_WORKS),
        _case("class of HTML", _rename(b"<script>alert(1)<"), codes=_WORKS),
        _case("file that is not UTF-8 and damaged", _bad_name(b"\xf6\xff.png"), says=_listed(1)),
        _case("file with a terminal escape and damaged", _bad_name(b"a\x1b[2J.png"), says=_listed(1)),
        _case("file with a line break and damaged", _bad_name(b"a\nb.png"), says=_listed(1)),
        _case("NFC in one split, NFD in the other", _accents("NFC", "NFD"), codes=_WORKS),
        _case("NFC and NFD in one split", _accents("NFC", "NFC", more="NFD"), says="Unicode"),
        *(_case(f"link {link} to {target}", _link(link, target), says="link|test images") for link, target in _LINKS),
        _case("test is a link to train", _same("train"), says="test images"),
        _case("test is a copy of train", _copied, says="test images"),
        _case("a folder level too many", _extra_level, says="folder level too many"),
        _case("a folder level too many in the training images alone", _extra_level_of_one, says="train"),
        _case("a folder level too many above", _level_above, says="data.path"),
        _case("one class", _one_class, says="one class only"),
        _case("images without class folders", _no_classes, says="class"),
        _case("classes that differ", lambda root: (root / "test" / "fox").rename(root / "test" / "wolf"), says="wolf"),
        _case("empty class", lambda root: _emptied(root / "train" / "fox"), says="fox"),
        _case("empty test class", lambda root: _emptied(root / "test" / "fox"), says="fox"),
        _case("no test folder", lambda root: shutil.rmtree(root / "test"), says="test"),
        _case("no folder at all", shutil.rmtree, codes=_REFUSED | {2}, says="images"),
        _case("a file in place of the folder", _file, codes=_REFUSED | {2}, says="images"),
        _case("what Windows and macOS leave", _systems, codes=_WORKS),
        _case("train, val and test", lambda root: shutil.copytree(root / "test", root / "val"), says="val"),
    ]


def _case(name: str, change: Change, *, codes: frozenset[int] = _REFUSED, says: str = "") -> Case:
    def plant(place: Place) -> Call:
        root = place.folder / "images"
        _make(root)
        change(root)
        return Call(words=("train", "run", "--recipe", "digits", "--no-rehearsal", *_RECIPE))

    writes = ("cache", "cache/*", "run", "run/*")
    return Case(
        kind="images", name=name, plant=plant, codes=codes, says=says, lines=8, writes=writes, check=_no_run_if_refused
    )


def _no_run_if_refused(folder: Path, ended: Ended) -> str | None:
    return "a run directory is left" if ended.code and (folder / "run").exists() else None


def _listed(count: int) -> str:
    return rf"{count} image\(s\) cannot be used"


def _make(root: Path) -> None:
    """Sixteen training images a class, four test images; all differ."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 4)):
        for name in _CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")


def _replace(root: Path, suffix: str = ".png") -> Path:
    """Where an image was."""
    path = root / "train" / "cat" / "0.png"
    path.unlink()
    return path.with_suffix(suffix)


def _first(content: bytes, suffix: str = ".png") -> Change:
    return lambda root: _replace(root, suffix).write_bytes(content)


def _encoded(name: str, side: int = 8) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    (image.quantize() if name == "BLP" else image).save(file, name)
    return file.getvalue()


def _cut(name: str, share: float = 0.5) -> bytes:
    whole = _encoded(name, 64)
    return whole[: max(12, int(len(whole) * share))]


def _damaged(name: str) -> bytes:
    content, draw = bytearray(_encoded(name)), np.random.default_rng(2)
    for place in draw.integers(8, len(content), 12):
        content[place] = draw.integers(0, 256)
    return bytes(content)


def _five(root: Path) -> None:
    for number, name in enumerate(_CUT[:5]):
        path = root / "train" / "cat" / f"{number}.png"
        path.unlink()
        path.with_suffix(f".{name.lower()}").write_bytes(_cut(name))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _with_chunk(kind: bytes, data: bytes) -> bytes:
    whole = _encoded("PNG")
    return whole[:33] + _chunk(kind, data) + whole[33:]  # behind the header


def _bomb() -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    return b"a\0\0" + zlib.compress(bytes(50_000_000))


def _exif(entries: bytes) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", exif=b"Exif\0\0" + entries)
    return file.getvalue()


def _tiff(*tags: tuple[int, int, int, bytes]) -> bytes:
    """Tags of EXIF: number, type, count, and four bytes of value or offset."""
    fields = b"".join(struct.pack(">HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + fields + bytes(4)


_TURNED = (0x0112, 3, 1, b"\0\x06\0\0")
_EXIF = {
    "turned, with an ASCII tag of type BYTE": _tiff((0x010F, 1, 2, b"ab\0\0"), _TURNED),
    "turned, with a rational of nothing": _tiff(_TURNED, (0x011A, 5, 1, b"\xff\xff\xff\xff")),
    "turned, with an unknown type": _tiff(_TURNED, (0x0131, 99, 1, b"\0\0\0\0")),
    "turned, with a thumbnail that is not there": _tiff(_TURNED, (0x0201, 4, 1, b"\x7f\xff\xff\xff")),
    "turned, with a sub-directory that leads back": _tiff(_TURNED, (0x8769, 4, 1, b"\0\0\0\x08")),
    "turned, with a count of billions": _tiff(_TURNED, (0x9286, 7, 0xFFFFFFFF, b"\0\0\0\x08")),
    "orientation 0": _tiff((0x0112, 3, 1, b"\0\0\0\0")),
    "orientation 9": _tiff((0x0112, 3, 1, b"\0\x09\0\0")),
    "orientation as text": _tiff((0x0112, 2, 2, b"6\0\0\0")),
    "orientation twice": _tiff(_TURNED, (0x0112, 3, 1, b"\0\x03\0\0")),
    "orientation as a list": _tiff((0x0112, 3, 2, b"\0\x06\0\x06")),
    "orientation as a fraction": _tiff((0x0112, 5, 1, b"\0\0\0\x08")),
    "cut short": _tiff(_TURNED)[:14],
    "nonsense": b"XX\0*\0\0\0\x08",
}


def _pipe(root: Path) -> None:
    os.mkfifo(_replace(root))


def _rename(name: bytes) -> Change:
    def change(root: Path) -> None:
        for split in ("train", "test"):
            (root / split / "dog").rename(root / split / os.fsdecode(name))

    return change


def _bad_name(name: bytes) -> Change:
    return lambda root: (root / "train" / "cat" / os.fsdecode(name)).write_bytes(b"no image")


def _accents(train: str, test: str, more: str | None = None) -> Change:
    def change(root: Path) -> None:
        for split, form in (("train", train), ("test", test)):
            (root / split / "fox").rename(root / split / unicodedata.normalize(form, "r\u00e9nard"))  # type: ignore[arg-type]
        if more is not None:
            shutil.copytree(root / "train" / "cat", root / "train" / unicodedata.normalize(more, "r\u00e9nard"))  # type: ignore[arg-type]

    return change


_LINKS = (
    ("cat/up", ".."), ("cat/self", "."), ("cat/other", "../dog"), ("cat/deep/up", "../../.."), ("ape", "fox"),
    ("cat/across", "../../test/dog"), ("cat/all", "../../../images"),
)  # fmt: skip


def _link(link: str, target: str) -> Change:
    def change(root: Path) -> None:
        path = root / "train" / link
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target)

    return change


def _same(name: str) -> Change:
    def change(root: Path) -> None:
        shutil.rmtree(root / "test")
        (root / "test").symlink_to(name)

    return change


def _copied(root: Path) -> None:
    shutil.rmtree(root / "test")
    shutil.copytree(root / "train", root / "test")


def _deeper(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    folder.with_name("moved").rename(folder / "images")


def _extra_level(root: Path) -> None:
    _deeper(root / "train")
    _deeper(root / "test")


def _extra_level_of_one(root: Path) -> None:
    _deeper(root / "train")


def _level_above(root: Path) -> None:
    (root / "data set").mkdir()
    for split in ("train", "test"):
        (root / split).rename(root / "data set" / split)


def _one_class(root: Path) -> None:
    for split in ("train", "test"):
        for name in ("dog", "fox"):
            shutil.rmtree(root / split / name)


def _no_classes(root: Path) -> None:
    for split in ("train", "test"):
        for path in sorted((root / split).rglob("*.png")):
            path.rename(root / split / f"{path.parent.name}-{path.name}")
        _emptied(root / split, folders=True)


def _emptied(folder: Path, *, folders: bool = False) -> None:
    for path in folder.iterdir():
        if path.is_dir() and folders:
            shutil.rmtree(path)
        elif path.is_file() and not folders:
            path.unlink()


def _file(root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("a file")


def _systems(root: Path) -> None:
    for name in ("Thumbs.db", "thumbs.db", "desktop.ini", ".DS_Store", "._0.png", "ehthumbs.db"):
        (root / "train" / "cat" / name).write_bytes(b"no image")
        (root / "train" / name).write_bytes(b"no image")
    for name in (".ipynb_checkpoints", "__MACOSX", ".Trashes"):
        shutil.copytree(root / "train" / "cat", root / "train" / name)
