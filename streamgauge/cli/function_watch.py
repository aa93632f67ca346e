"""How far the template's functions are with a stream, as the stores and their log say: they are nobody's process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from time import monotonic

from streamgauge.cli.context import Workplace
from streamgauge.cli.stores import state_store
from streamgauge.events.records import Shard
from streamgauge.infra.function_logs import last_error
from streamgauge.processors.commit.core_engine import core_engine
from streamgauge.processors.commit.ports import Fenced, StoreUnavailable
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.stream_shards import StreamUnreadable, list_shards
from streamgauge.sinks.archive.states import PipelineStates, read_states

__all__ = ["FUNCTIONS", "FunctionWatch"]

FUNCTIONS = ("ProcessorFunctionName", "TickFunctionName")
"""The template's outputs that name them."""

_LOOK_INTERVAL_S = 1.0
# A cold start takes a few seconds, and is no trouble.
_TROUBLE_AFTER_S = 10.0


class FunctionWatch:
    """Looks at the saved states of a pipeline's shards, at most once a second.

    ``events``, the positions that are committed, only rises; ``input_ended`` holds once every open shard has seen the
    end of the input.
    """

    def __init__(self, place: Workplace, pipeline: Pipeline) -> None:
        self._place = place
        self._pipeline = pipeline
        self._store = state_store(place, pipeline)
        self._engine = core_engine(place.output("StreamArn"))
        self._started = monotonic()
        self._started_ms = time.time_ns() // 1_000_000

        self.events = 0
        self.input_ended = False
        self.moved_at = self._started
        self._look_at = 0.0
        self._line = ""

    def look(self) -> str:
        """Look again if it is time; what there is to see, in a line."""
        if monotonic() >= self._look_at:
            try:
                states = read_states(self._pipeline, self._store, self._engine)
                shards = list_shards(self._place.clients.kinesis, self._pipeline.stream)
            except (StoreUnavailable, Fenced, StreamUnreadable) as error:
                # It comes back, or whoever waits loses patience.
                self._line = f"how far the functions are cannot be read: {error}"
            else:
                self._note(states, shards)
            if not self.input_ended and monotonic() - self.moved_at > _TROUBLE_AFTER_S:
                said = self.error()
                self._line += f", trouble: {said}" if said else ""
            self._look_at = monotonic() + _LOOK_INTERVAL_S
        return self._line

    def _note(self, states: PipelineStates, shards: Sequence[Shard]) -> None:
        parents = {parent for shard in shards for parent in shard.parents}
        saved = {shard_id: state for shard_id, state in states.saved.items() if not state.row.sealed}
        open_ids = [shard.shard_id for shard in shards if shard.shard_id not in parents]
        self.input_ended = all(shard_id in saved and saved[shard_id].engine.input_ended for shard_id in open_ids)
        events = sum(state.engine.counters.positions for state in states)
        if events != self.events:
            self.events, self.moved_at = events, monotonic()
        size = sum(state.row.snapshot_bytes for state in saved.values())
        committed = [state.row.committed_at_ms for state in saved.values() if state.row.committed_at_ms is not None]
        age = f", saved {max(0.0, time.time() - min(committed) / 1000):.0f} s ago" if committed else ""
        self._line = (
            f"processed {events:,} events of {len(saved)} shards, {monotonic() - self._started:.0f} s, "
            f"state {size / 1e6:.1f} MB{age}"
        )

    def error(self) -> str | None:
        """The last error in the functions' logs, with the function's name."""
        found = []
        for output in FUNCTIONS:
            name = self._place.output(output)
            clients = self._place.clients
            logged = last_error(clients.functions, clients.logs, name, since_ms=self._started_ms)
            if logged is not None:
                found.append((logged.at_ms, f"{name}: {logged.text}"))
        return max(found)[1] if found else None
