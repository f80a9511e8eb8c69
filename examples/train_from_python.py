"""Train, prove, export and gate a student from Python: `python train_from_python.py [RUN_DIR]`.

The recipe is made of objects, the progress comes by callback, and the exit code is the gate's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import ecd_deploy
from ecd_deploy import DataConfig, EpochEnded, Event, GateConfig, MethodConfig, Recipe, StepEnded, StudentConfig

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


@dataclass
class Progress:
    """Prints a line an epoch, and one a step of the run."""

    best: float = 0.0

    def __call__(self, event: Event) -> None:
        """Print an event."""
        match event:
            case EpochEnded():
                self.best = max(self.best, event.record.validation_top1 or 0.0)
                print(f"epoch {event.record.epoch}/{event.epochs}: loss {event.record.loss:.3f}, best {self.best:.1%}")
            case StepEnded():
                print(f"{event.step}: {event.seconds:.1f} s")


def digits_recipe(epochs: int = 20) -> Recipe:
    """Scikit-learn's handwritten digits and a ResNet-8, trained by Explicit Connection Distillation."""
    return Recipe(
        name="digits-from-python",
        data=DataConfig(source="digits", crop_padding=1),
        student=StudentConfig(name="resnet8"),
        method=MethodConfig(name="ecd", kernels=4),
        train=ecd_deploy.TrainConfig(epochs=epochs, batch_size=64, schedule="cosine", select="last", threads=1),
        gate=GateConfig(min_top1=0.95, max_drop=0.01),
    )


def main(out: str, recipe: Recipe) -> int:
    """Run it, and say what was found."""
    results = ecd_deploy.run(recipe, out, on_event=Progress())
    for check in results.gate.checks:
        print(f"{check.verdict:12} {check.name}: {check.reason}")
    print(f"{results.shipped.file}: {results.shipped.bytes / 1e3:.0f} kB, top-1 {results.top1.accuracy:.1%}")
    return EXIT_CODES[results.gate.verdict]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "runs/digits-from-python", digits_recipe()))
