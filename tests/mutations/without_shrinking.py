"""A pytest plugin: one failing example is enough, nobody reads the smallest one."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("without shrinking", phases=[Phase.explicit, Phase.generate], database=None)
settings.load_profile("without shrinking")
