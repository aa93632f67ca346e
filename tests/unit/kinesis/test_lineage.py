"""Every put record is read exactly once in lineage order, whatever is split, merged, scaled and read in between."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamgauge.events.hash_key import FULL_RANGE, MAX_HASH_KEY, HashRange
from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import KinesisModel, PutEntry
from streamgauge.infra.local.kinesis.shards import ShardState
from streamgauge.infra.local.kinesis.streams import ShardFilter

T0 = 1_700_000_000_000
# The edges of ranges, what lies beside them, and anything else.
HASH_KEYS = st.one_of(
    st.sampled_from(
        [edge + step for edge in range(0, 2**128, 2**125) for step in (-1, 0, 1) if edge + step >= 0] + [MAX_HASH_KEY]
    ),
    st.integers(0, MAX_HASH_KEY),
)


class Lineage(RuleBasedStateMachine):
    """A consumer that reads a shard only after its parents' ends, beside producers and resharding."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.model = KinesisModel(limits=Limits(enforced=False))
        self.counter = itertools.count()
        # Data by shard and in order of their sequence numbers, as the answers to puts say.
        self.acknowledged: dict[str, list[tuple[int, bytes]]] = {}
        self.tokens: dict[str, str] = {}
        self.ended: set[str] = set()
        self.read: dict[str, list[tuple[int, bytes]]] = {}

    @initialize(shards=st.integers(1, 4))
    def create(self, shards: int) -> None:
        self.model.create_stream("s", shards, now_ms=self.now)
        for shard in self.model.list_shards("s", now_ms=self.now, shard_filter=ShardFilter("AT_TRIM_HORIZON"))[0]:
            self.begin(shard.shard_id)

    @property
    def open_shards(self) -> list[ShardState]:
        return self.model.streams["s"].open

    def begin(self, shard_id: str) -> None:
        assert shard_id not in self.tokens, "a shard begins once"
        self.tokens[shard_id] = self.model.get_shard_iterator("s", shard_id, "TRIM_HORIZON", now_ms=self.now)
        self.read[shard_id] = []

    @rule(milliseconds=st.sampled_from([-500, 0, 1, 999, 60_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule(keys=st.lists(HASH_KEYS, min_size=1, max_size=8))
    def put(self, keys: list[int]) -> None:
        were_open = {shard.shard_id for shard in self.open_shards}
        entries = [PutEntry("k", b"%d" % next(self.counter), key) for key in keys]
        for entry, result in zip(entries, self.model.put_records("s", entries, now_ms=self.now), strict=True):
            shard_id, number = result
            assert shard_id in were_open, "a record never goes to a closed shard"
            shard = self.model.streams["s"].shards[shard_id]
            assert entry.explicit_hash_key in shard.hash_range
            self.acknowledged.setdefault(shard_id, []).append((int(number), entry.data))

    @rule(pick=st.integers(0, 10**6), part=st.floats(0, 1))
    def split(self, pick: int, part: float) -> None:
        shard = self.open_shards[pick % len(self.open_shards)]
        first, last = shard.hash_range
        key = first + 2 + int((last - first) * part)
        if first + 1 < key < last:
            self.model.split_shard("s", shard.shard_id, key, now_ms=self.now)

    @precondition(lambda self: len(self.open_shards) > 1)
    @rule(pick=st.integers(0, 10**6), swap=st.booleans())
    def merge(self, pick: int, *, swap: bool) -> None:
        place = pick % (len(self.open_shards) - 1)
        pair = [shard.shard_id for shard in self.open_shards[place : place + 2]]
        one, other = reversed(pair) if swap else pair
        self.model.merge_shards("s", one, other, now_ms=self.now)

    @rule(count=st.integers(1, 6))
    def scale(self, count: int) -> None:
        self.model.update_shard_count("s", count, now_ms=self.now)
        assert [shard.hash_range for shard in self.open_shards] == FULL_RANGE.even_parts(count)

    @rule(pick=st.integers(0, 10**6), limit=st.integers(1, 5))
    def read_some(self, pick: int, limit: int) -> None:
        live = sorted(set(self.tokens) - self.ended)
        if live:
            self.read_shard(live[pick % len(live)], limit)

    def read_shard(self, shard_id: str, limit: int) -> None:
        if self.now > T0 + 250_000:
            # Older than an iterator lives: take the position up again after the last record read.
            last = self.read[shard_id][-1:]
            self.tokens[shard_id] = self.model.get_shard_iterator(
                "s",
                shard_id,
                "AFTER_SEQUENCE_NUMBER" if last else "TRIM_HORIZON",
                sequence_number=str(last[0][0]) if last else None,
                now_ms=self.now,
            )
        result = self.model.get_records(self.tokens[shard_id], now_ms=self.now, limit=limit)
        self.read[shard_id] += [(int(record.sequence_number), record.data) for record in result.records]
        if result.next_iterator is not None:
            self.tokens[shard_id] = result.next_iterator
            return
        self.ended.add(shard_id)
        assert result.children, "only a closed shard ends"
        for child in result.children:
            assert shard_id in child.parents
            if set(child.parents) <= self.ended:
                self.begin(child.shard_id)

    @invariant()
    def open_ranges_partition_the_hash_keys(self) -> None:
        if "s" not in self.model.streams:
            return
        ranges = [shard.hash_range for shard in self.open_shards]
        assert ranges[0].first == 0
        assert ranges[-1].last == MAX_HASH_KEY
        assert all(one.last + 1 == other.first for one, other in itertools.pairwise(ranges))

    @invariant()
    def children_follow_their_parents(self) -> None:
        if "s" not in self.model.streams:
            return
        shards = self.model.streams["s"].shards
        for shard in shards.values():
            assert (shard.closed_ms is None) == (shard.children == [])
            assert shard.closed_ms is None or shard.closed_ms >= shard.created_ms, "even if the clock went back"
            for child in shard.children:
                assert child.starting_sequence_number > (shard.ending_sequence_number or 0)
                assert HashRange(*child.hash_range).intersection(shard.hash_range) is not None
            for number, _ in self.acknowledged.get(shard.shard_id, []):
                assert shard.starting_sequence_number < number
                assert number < (shard.ending_sequence_number or number + 1)

    def teardown(self) -> None:
        if "s" not in self.model.streams:
            return
        for _ in range(10_000):
            waiting = [
                shard_id
                for shard_id in sorted(set(self.tokens) - self.ended)
                if len(self.read[shard_id]) < len(self.acknowledged.get(shard_id, []))
                or self.model.streams["s"].shards[shard_id].closed_ms is not None
            ]
            if not waiting:
                break
            self.read_shard(waiting[0], 1_000)
        assert self.read == {shard_id: self.acknowledged.get(shard_id, []) for shard_id in self.read}
        assert set(self.acknowledged) <= set(self.read), "every shard with records was reached through its parents"


Lineage.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestLineage = Lineage.TestCase
