"""Interfaces of submitit that are private or not documented; each function names the one that it rests on."""

from __future__ import annotations


def shared_settings() -> frozenset[str]:
    """What `update_parameters` takes for every kind of executor: `AutoExecutor._valid_parameters`."""
    from submitit import AutoExecutor

    return frozenset(AutoExecutor._valid_parameters())


def slurm_settings() -> frozenset[str]:
    """What a Slurm executor takes on top: `SlurmExecutor._valid_parameters`."""
    from submitit import SlurmExecutor

    return frozenset(SlurmExecutor._valid_parameters())
