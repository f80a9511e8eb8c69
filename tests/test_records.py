from __future__ import annotations

import pytest
from pydantic import ValidationError

from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.records import Record


class Wheel(Record, strict=True):
    spokes: int


class Cart(Record):
    name: str
    wheels: tuple[Wheel, ...]
    spare: Wheel | None = None


CART = Cart(name="blue", wheels=(Wheel(spokes=12),))


def test_a_record_is_read_back_from_its_text_and_cannot_be_changed() -> None:
    assert Cart.from_json(CART.to_json(), "no cart") == CART
    assert CART.to_json().endswith(b"}\n")
    with pytest.raises(ValidationError, match="frozen"):
        CART.name = "red"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            '{"name": "a", "wheels": [], "nam": 1}',
            "nam: unknown key (did you mean 'name'?); known keys are name, wheels, spare",
        ),
        (
            '{"name": "a", "wheels": [{"spokes": 1}, {"spokes": 2, "spoke": 3}]}',
            "wheels.1.spoke: unknown key (did you mean 'spokes'?); known keys are spokes",
        ),
        (
            '{"name": "a", "wheels": [], "spare": {"spokes": 1, "spoke": 3}}',
            "spare.spoke: unknown key (did you mean 'spokes'?); known keys are spokes",
        ),
        ('{"wheels": []}', "name: is missing"),
        (
            '{"name": "a", "wheels": [{"spokes": "many"}]}',
            "wheels.0.spokes: Input should be a valid integer (it is 'many')",
        ),
        ("[]", "the document: Input should be an object (it is [])"),
    ],
)
def test_a_fault_is_told_with_key_value_and_choices(text: str, fault: str) -> None:
    with pytest.raises(UsageError) as caught:
        Cart.from_json(text, "cart.json is no cart", UsageError)
    assert str(caught.value) == f"cart.json is no cart:\n  {fault}"


def test_a_long_value_and_many_faults_are_cut() -> None:
    with pytest.raises(ArtefactError) as caught:
        Cart.from_document({"name": "a" * 10_000, "wheels": [{"spokes": "x" * 10_000}] * 50}, "no cart", ArtefactError)
    assert len(str(caught.value)) < 5_000
    assert str(caught.value).endswith("and 30 more")
