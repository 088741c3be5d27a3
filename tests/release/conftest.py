"""Small configurations and runs to start from, to list and to export."""

from __future__ import annotations

import pytest
from weights_on_disk import save_run

from rstg_tf import flags


@pytest.fixture
def toy_config(toy_settings):
    return flags.config_from_settings({**toy_settings, "ema_momentum": 0.9})


@pytest.fixture
def toy_folder(toy_settings, tmp_path, monkeypatch):
    """The present folder, with toy.flags, other.flags (three scales) and run/, a run of toy.flags."""
    for name, changes in (("toy", {}), ("other", {"num_scales": 3})):
        settings = {**toy_settings, **changes}
        (tmp_path / f"{name}.flags").write_text("\n".join(f"--{flag}={value}" for flag, value in settings.items()))
    monkeypatch.chdir(tmp_path)
    save_run("run", flags.config_from_settings({**toy_settings, "ema_momentum": 0.9}), averaged=True)
    return tmp_path
