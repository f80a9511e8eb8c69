"""`python -m benchmarks.launches`: what a step of ResNet-20 launches on a GPU, by operator, counted on a CPU.

The columns are the student alone, ECD, and ECD by Triton, as they are and with `train.cuda_graph` "fused"; what the
teacher costs is the difference of two. The last line are the bytes that the launches read and write, at batch 128.
"""

from __future__ import annotations

import warnings

from tests.training.launch_count import METHODS, count

_BATCH = 128


def main() -> None:
    """Print the table, those operators first that take most launches in ECD by Triton."""
    warnings.simplefilter("ignore")
    settings = [(method, fused) for fused in (False, True) for method in METHODS]
    found = [count(method, 2, fused=fused) for method, fused in settings]
    larger = [count(method, 3, fused=fused) for method, fused in settings]
    titles = [f"{method}, fused" if fused else method for method, fused in settings]
    print("| operator |", " | ".join(titles), "|\n|---|", "---|" * len(titles), sep="")
    for name in sorted({name for one in found for name in one.counts}, key=lambda name: -found[-1].counts[name]):
        print("|", " | ".join([name, *(str(one.counts[name]) for one in found)]), "|")
    print("| all |", " | ".join(str(one.total) for one in found), "|")
    sizes = (
        small.bytes + (large.bytes - small.bytes) * (_BATCH - 2) for small, large in zip(found, larger, strict=True)
    )
    print("| GB |", " | ".join(f"{size / 1e9:.2f}" for size in sizes), "|")


if __name__ == "__main__":
    main()
