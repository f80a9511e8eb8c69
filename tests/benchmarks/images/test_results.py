from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_page_of_images_quotes_what_was_measured() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "images.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    for image in results["raw"]["images"]:
        target, architecture = image["name"].split(", ")
        base, python, *own = (layer["bytes"] for layer in image["layers"])
        cells = [f"{size / 1e6:.1f}" for size in (base, python, sum(own), image["bytes"])]
        assert f"| `{target}`, {architecture} | {' | '.join(cells)} |\n" in page
        assert all(check["passed"] for check in image["checks"])
    assert str(results["setting"]["torch"]) in page
