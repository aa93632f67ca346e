"""Shard iterators and pagination tokens: opaque to their holders, and complete in themselves."""

from __future__ import annotations

import binascii
from typing import TypeVar

import msgspec

from streamgauge.infra.local.kinesis.errors import InvalidArgumentException
from streamgauge.infra.local.kinesis.streams import ShardFilterType

__all__ = ["IteratorToken", "ShardsToken", "StreamsToken", "decode_token", "encode_token"]


class IteratorToken(msgspec.Struct, frozen=True, array_like=True, tag="iterator"):
    """A position in a shard of one incarnation of a stream. ``position`` counts records from the shard's first."""

    stream: str
    stream_created_ms: int
    shard_id: str
    position: int
    issued_ms: int


class ShardsToken(msgspec.Struct, frozen=True, array_like=True, tag="shards"):
    """Where ListShards goes on. The filter travels with it, as a caller gives nothing else with a token."""

    stream: str
    stream_created_ms: int
    after_shard_id: str
    filter_type: ShardFilterType
    filter_shard_id: str | None
    filter_timestamp_ms: int | None
    issued_ms: int


class StreamsToken(msgspec.Struct, frozen=True, array_like=True, tag="streams"):
    """Where ListStreams goes on."""

    after_name: str
    issued_ms: int


Token = TypeVar("Token", IteratorToken, ShardsToken, StreamsToken)


def encode_token(token: IteratorToken | ShardsToken | StreamsToken) -> str:
    """A token as text."""
    return binascii.b2a_base64(msgspec.json.encode(token), newline=False).decode()


def decode_token(text: str, token_type: type[Token], *, name: str) -> Token:
    """Read what `encode_token` wrote.

    Raises
    ------
    InvalidArgumentException
        The text is no such token.
    """
    try:
        return msgspec.json.decode(binascii.a2b_base64(text, strict_mode=True), type=token_type)
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError) as cause:
        raise InvalidArgumentException(f"Invalid {name}.") from cause
