"""What ``import streamgauge`` offers."""

from __future__ import annotations

import pytest

import streamgauge


@pytest.mark.parametrize("name", streamgauge.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(streamgauge, name)
    assert name in dir(streamgauge)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = streamgauge.nothing
