from __future__ import annotations

import pytest

pytest.importorskip("submitit")

from ecd_deploy.compat.submitit import shared_settings, slurm_settings


def test_the_settings_of_jobs_are_told() -> None:
    assert {"timeout_min", "cpus_per_task", "mem_gb"} <= shared_settings()
    assert {"partition", "account", "additional_parameters"} <= slurm_settings()
    assert "no_such_setting" not in shared_settings() | slurm_settings()
