"""What a rehearsal tried, and how long each part took."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a rehearsal, by its name in the field, and its seconds."""

    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A rehearsal that found nothing to refuse.

    Attributes:
        student: its name in the recipe.
        images: how many it was tried on.
        noise: whether these were no images of the recipe.
        parts: in their order; each format of the recipe is one.
        warnings: what is allowed but worth knowing, a line each.
    """

    student: str
    images: int
    noise: bool = False
    parts: tuple[Part, ...]
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(part.seconds for part in self.parts)

    def words(self) -> str:
        """What was tried and how long it took, one line, and a line for each warning."""
        parts = ", ".join(f"{part.name} {part.seconds:.1f} s" for part in self.parts if part.seconds >= _SHOWN_SECONDS)
        images = f"{self.images} images{' of noise' * self.noise}"
        line = f"rehearsed {self.student} on {images} in {self.seconds:.1f} s: {parts}"
        return "\n".join((line, *(f"warning: {warning}" for warning in self.warnings)))
