"""What a user reads of an error."""

from __future__ import annotations

from streamgauge.events.errors import StreamgaugeError


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = StreamgaugeError("the port is taken", where="127.0.0.1:4566", remedy="Give another with --port")
    assert str(error) == "127.0.0.1:4566: the port is taken. Give another with --port"
    assert (error.what, error.where, error.remedy) == (
        "the port is taken",
        "127.0.0.1:4566",
        "Give another with --port",
    )


def test_an_error_without_a_place_is_its_sentence() -> None:
    assert str(StreamgaugeError("the port is taken")) == "the port is taken"
