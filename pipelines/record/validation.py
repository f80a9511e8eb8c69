"""What `validate` found of each artefact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.exporters.budget import ParityBudget
from ecd_deploy.exporters.divergence.result import Divergence
from ecd_deploy.measure.scores.accuracy import PairedTop1
from ecd_deploy.measure.scores.parity import Parity
from ecd_deploy.records import Record


class Speed(Record):
    """Latency of an artefact and of the fp32 ONNX file, in random blocks by one process on this host."""

    threads: int
    p50_ms: float
    """Median over the blocks."""
    fp32_p50_ms: float
    times_fp32: float
    """How many times as fast as fp32: above 1 is faster."""
    same_file_ratio: float
    """The same of two sessions of the fp32 file: how far from 1 chance alone gets."""
    contended: bool


class Help(Record):
    """Whether an artefact is better than the fp32 ONNX file, and why."""

    helps: bool | None
    """None where this host was too busy to tell."""
    reason: str

    def words(self) -> str:
        """The verdict for people."""
        return {True: "helps", False: "does not help", None: "undecided"}[self.helps]


class ArtefactValidation(Record):
    """One artefact against the PyTorch student."""

    format: str
    file: str
    sha256: str
    parity: Parity
    budget: ParityBudget | None = None
    """None where the format keeps float32: `gate.max_abs_diff` holds."""
    divergence: Divergence | None = None
    """Where parity fails: the first node of an ONNX artefact that diverges from the student."""
    top1: PairedTop1 | None = None
    """On the whole test set, of what a runtime of `profile.runtimes` runs."""
    provider: str | None = None
    """Execution provider of onnxruntime that logits and accuracy are of; None for the CPU's, or another runtime."""
    on_cpu: tuple[str, ...] = ()
    """Names of the operators that fell back from it to the CPU."""
    speed: Speed | None = None
    """Of what another of these runs, or is made from the fp32 ONNX file, each in its own runtime."""
    help: Help | None = None

    @property
    def place(self) -> str:
        """By which provider, and what it left to the CPU, for people; empty for the CPU's."""
        return "" if self.provider is None else f" by {self.provider}{fallen_back(self.on_cpu)}"

    def parity_problem(self, max_abs_diff: float | None) -> str | None:
        """How the logits miss the format's budget, in words; None where they keep it."""
        parity = self.parity
        if parity.problem() is not None:
            return parity.problem()
        if self.budget is None:
            value, limit = parity.max_abs_diff or 0.0, max_abs_diff
            return f"logits differ by {value:.2g}, limit {limit:.2g}" if limit is not None and value > limit else None
        relative, agreement = parity.relative_diff or 0.0, parity.argmax_agreement or 0.0
        if relative > self.budget.relative:
            return f"logits differ by {relative:.1%} of the largest, limit {self.budget.relative:.0%}"
        if agreement < self.budget.agreement:
            return f"{agreement:.1%} of the images keep their class, limit {self.budget.agreement:.0%}"
        return None


def fallen_back(on_cpu: Sequence[str]) -> str:
    """Which operators a provider left to the CPU, for people; empty if none."""
    return f"; {len(on_cpu)} operator(s) fell back to the CPU: {', '.join(on_cpu)}" if on_cpu else ""


class Validation(Record):
    """Written to `validation.json`."""

    schema_version: Literal[5] = 5
    artefacts: tuple[ArtefactValidation, ...]
    onnx_top1: PairedTop1
    """The ONNX student by onnxruntime against the PyTorch student, on the whole test set."""
    batch_size: int
    """Images that an artefact is given at a time: accuracy and latency are of the same."""
    overlapping_test_images: int
    """Test images whose pixels are those of a training or validation image too."""
    recommended: str = "onnx"
    """Format of the artefact to ship to a host like this one with these runtimes: the fastest that helps, or fp32
    ONNX."""
    recommended_sha256: str | None = None
    """Of its file. Steps after `validate` take this choice as it is, and never make it anew."""

    def shipping(self, choice: str) -> tuple[ArtefactValidation, ...]:
        """The artefacts that `gate.artefact` means.

        Raises:
            UsageError: it means none of those that were run on the whole test set.
            ArtefactError: the recommended one is no more what it was.
        """
        measured = tuple(entry for entry in self.artefacts if entry.top1 is not None)
        name = self.recommended if choice == "recommended" else choice
        found = measured if name == "all" else tuple(entry for entry in measured if entry.format == name)
        if not found:
            choices = ", ".join(("recommended", "all", *(entry.format for entry in measured)))
            raise UsageError(
                f"artefact '{choice}': it is not one that a runtime of profile.runtimes runs; choices are {choices}"
            )
        if choice == "recommended" and self.recommended_sha256 not in (None, found[0].sha256):
            raise ArtefactError(f"{found[0].file} is not the file that `validate` recommended: run `validate` again")
        return found

    def counterpart(self, format_name: str | None, choice: str) -> ArtefactValidation:
        """What an artefact of another run is compared with: one of this format, or else the first that ships.

        Args:
            format_name: None where it is what ships in any case.
            choice: as `shipping` takes it.
        """
        alike = (entry for entry in self.artefacts if entry.top1 is not None and entry.format == format_name)
        return next(alike, None) or self.shipping(choice)[0]

    def batches(self) -> str:
        """How the artefacts were given the images, for people."""
        return "one image at a time" if self.batch_size == 1 else f"in batches of {self.batch_size}"
