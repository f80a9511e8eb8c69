from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ecd_deploy.errors import UsageError
from ecd_deploy.pipelines.device.budgets import BUILTIN_DEVICES, load_device
from ecd_deploy.recipe.recipe import load_recipe


def test_the_promised_devices_are_there() -> None:
    assert set(BUILTIN_DEVICES.names()) == {"rpi4", "rpi5", "jetson-orin-nano", "android-arm64", "x86-edge"}


@pytest.mark.parametrize("name", BUILTIN_DEVICES.names())
def test_a_device_decides_types_threads_and_budgets(name: str) -> None:
    device = load_device(name)
    recipe = load_recipe("digits", device.overrides())
    assert recipe.export.int8.target == ("x86" if device.facts.machine == "x86_64" else "arm")
    assert recipe.profile.device == name
    assert recipe.profile.threads == device.threads < device.facts.cores
    assert recipe.gate.p90_ms_max == device.budget.p90_ms
    assert recipe.gate.max_size_mb == device.budget.size_mb
    assert recipe.gate.peak_memory_mb_max == device.budget.peak_memory_mb
    assert all(source.startswith("https://") for source in device.facts.sources)


def test_the_callers_word_outweighs_the_device() -> None:
    overrides = (*load_device("rpi4").overrides(), "gate.p90_ms_max=3.0")
    assert load_recipe("digits", overrides).gate.p90_ms_max == 3.0


def test_an_unknown_device_names_the_choices() -> None:
    with pytest.raises(UsageError, match="rpi4"):
        load_device("rpi9")


def test_device_files_say_what_is_a_choice() -> None:
    for path in (Path(__file__).parents[3] / "pipelines" / "device" / "devices").glob("*.toml"):
        text = path.read_text()
        assert "# Our choice" in text
        assert tomllib.loads(text)["facts"]["sources"]
