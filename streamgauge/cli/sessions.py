"""Shard sessions over a deployed stack."""

from __future__ import annotations

import time

from streamgauge.cli.context import Workplace
from streamgauge.cli.stores import archive_objects, receivers, state_store
from streamgauge.events.records import Shard
from streamgauge.processors.commit.ancestry import Parents
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.commit.session import ShardSession
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.local import OpenSession

__all__ = ["session_opener"]


def session_opener(place: Workplace, pipeline: Pipeline, *, accept_gap: bool) -> OpenSession:
    """Opens sessions whose state and effects go to the stack's stores; `accept_gap` as in `Parents`."""
    engine = core_engine(place.output("StreamArn"))
    store = state_store(place, pipeline)
    archive = archive_objects(place)
    to = receivers(place, pipeline)

    def open_session(shard: Shard, start: str, *, owner: str, seen_version: int | None) -> ShardSession:
        return ShardSession.open(
            pipeline,
            shard,
            store=store,
            archive=archive,
            receivers=to,
            owner=owner,
            now_ms=lambda: time.time_ns() // 1_000_000,
            engine=engine,
            start=start,
            seen_version=seen_version,
            parents=Parents(accept_gap=accept_gap),
        )

    return open_session
