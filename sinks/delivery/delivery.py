"""Own delivery: every shard of a stream to Parquet objects in the archive.

See ``docs/adr/0012-archive-columns-and-delivery.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple, Protocol

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.mapping import EventMapping
from streamgauge.events.records import Shard
from streamgauge.events.shard_listing import ListedShard
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, reason_of
from streamgauge.processors.commit.ports import StoreUnavailable
from streamgauge.sinks.archive.columns import raw_tables
from streamgauge.sinks.archive.layout import DELIVERY_PREFIX
from streamgauge.sinks.archive.objects import ArchiveObjects
from streamgauge.sinks.delivery.rows import RecordReader
from streamgauge.sinks.delivery.settings import DeliverySettings
from streamgauge.sinks.delivery.shard import Counts, ShardContext, ShardDelivery
from streamgauge.sinks.delivery.stream import KinesisReader, list_shards, may_pass, unreadable

__all__ = ["Delivery", "DeliveryProgress", "Stop", "run_delivery"]

_BACK_OFF_MS = 1_000
_FLUSH_TRIES = 30


class DeliveryProgress(NamedTuple):
    """Where delivery stands. ``rows`` by table since the start; ``trouble``: why something is being tried again."""

    rows: dict[str, int]
    objects: int
    bytes: int
    shards: int
    closed_shards: int
    behind_ms: int
    undelivered: bool
    trouble: str | None


class Delivery:
    """Reads every shard from its beginning and keeps no state but the ranges in the archive.

    Nothing here reads a clock: `step` is told the time, so a simulation drives it as a loop does. One thread only.

    Parameters
    ----------
    client
        boto3's Kinesis client, or something that answers like it.
    stream, stream_arn
        Name and ARN of the stream.
    objects
        The archive.
    catalogue, mapping
        How records are read: as the pipeline file says.
    accept_gap
        Go on where the stream has trimmed what was not delivered; the gap is written into the range after it.
    """

    def __init__(
        self,
        client: KinesisReader,
        *,
        stream: str,
        stream_arn: str,
        objects: ArchiveObjects,
        catalogue: Catalogue,
        mapping: EventMapping | None = None,
        settings: DeliverySettings | None = None,
        accept_gap: bool = False,
    ) -> None:
        self._client = client
        self._stream = stream
        self._settings = settings or DeliverySettings()
        self._counts = Counts()
        self._context = ShardContext(
            client=client,
            stream=stream,
            stream_arn=stream_arn,
            objects=objects,
            reader=RecordReader(catalogue, mapping, stream_arn),
            schemas=raw_tables(catalogue),
            catalogue=_fingerprint(catalogue, mapping),
            settings=self._settings,
            accept_gap=accept_gap,
            counts=self._counts,
        )
        self._listed: dict[str, ListedShard] = {}
        self._shards: dict[str, ShardDelivery] = {}
        self._next_list_ms: int | None = None
        self._next_read_ms: dict[str, int] = {}
        self._trouble: str | None = None
        # Shards that were in the archive at the start.
        self._delivered: set[str] | None = None

    @property
    def progress(self) -> DeliveryProgress:
        """Where delivery stands."""
        shards = self._shards.values()
        return DeliveryProgress(
            dict(self._counts.rows),
            self._counts.objects,
            self._counts.bytes,
            len(self._listed),
            sum(shard.closed for shard in shards),
            max((shard.behind_ms or 0 for shard in shards), default=0),
            any(shard.has_undelivered for shard in shards),
            self._trouble,
        )

    @property
    def input_ended(self) -> bool:
        """Whether every open shard, or all its ancestors where it is empty, ends with an ended input."""
        return bool(self._listed) and all(self._has_ended(listed) for listed in self._listed.values() if listed.is_open)

    def step(self, now_ms: int) -> int:
        """Read every shard that is due once, write every range that is due; return when the next step is due.

        Raises
        ------
        TrimmedRecords
            Undelivered records are gone from the stream, and gaps are not accepted.
        DeliveryConflict, StreamUnreadable, StoreRefused
            It will not go on by itself.
        """
        self._trouble = None
        if self._next_list_ms is None or now_ms >= self._next_list_ms:
            self._list(now_ms)
        for shard_id, listed in self._listed.items():
            if now_ms >= self._next_read_ms.get(shard_id, now_ms) and self._may_read(listed):
                self._step_shard(listed, now_ms)
        assert self._next_list_ms is not None
        return min([self._next_list_ms, *self._next_read_ms.values()])

    def flush(self, now_ms: int) -> None:
        """Write everything that was read, except what belongs to an unfinished range that was not read whole yet.

        Raises
        ------
        StoreUnavailable
            The archive does not answer; the same call may be made again.
        DeliveryConflict, StoreRefused
            It will not go on by itself.
        """
        for shard in self._shards.values():
            shard.advance(now_ms, flush=True)

    def _list(self, now_ms: int) -> None:
        try:
            listed = list_shards(self._client, self._stream)
        except AWS_ERRORS as error:
            self._try_again(error)
            self._next_list_ms = now_ms + _BACK_OFF_MS
            return
        self._listed = {entry.shard.shard_id: entry for entry in listed}
        try:
            self._abandon_forgotten(now_ms)
        except StoreUnavailable as error:
            self._trouble = str(error)
            self._next_list_ms = now_ms + _BACK_OFF_MS
            return
        self._next_list_ms = now_ms + self._settings.list_interval_ms

    def _abandon_forgotten(self, now_ms: int) -> None:
        """What the stream has forgotten before it was delivered whole must not be lost silently."""
        if self._delivered is None:
            names = self._context.objects.names(DELIVERY_PREFIX)
            self._delivered = {name.removeprefix(DELIVERY_PREFIX).partition("/")[0] for name in names}
        for shard_id in sorted((self._delivered | self._shards.keys()) - self._listed.keys()):
            shard = self._shards.get(shard_id)
            if shard is None:
                shard = self._shards[shard_id] = ShardDelivery(Shard(shard_id, FULL_RANGE), self._context)
            shard.abandon(now_ms)
            self._next_read_ms.pop(shard_id, None)

    def _may_read(self, listed: ListedShard) -> bool:
        if listed.shard.shard_id in self._shards:
            return not self._shards[listed.shard.shard_id].closed
        parents = [parent for parent in listed.shard.parents if parent in self._listed]
        return all(parent in self._shards and self._shards[parent].closed for parent in parents)

    def _step_shard(self, listed: ListedShard, now_ms: int) -> None:
        shard_id = listed.shard.shard_id
        try:
            shard = self._shards.get(shard_id)
            if shard is None:
                shard = self._shards[shard_id] = ShardDelivery(listed.shard, self._context)
            shard.read(now_ms)
            shard.advance(now_ms)
        except AWS_ERRORS as error:
            self._try_again(error)
            self._next_read_ms[shard_id] = now_ms + _BACK_OFF_MS
            return
        except StoreUnavailable as error:
            self._trouble = str(error)
            self._next_read_ms[shard_id] = now_ms + _BACK_OFF_MS
            return
        if shard.closed:
            self._next_read_ms.pop(shard_id, None)
            # Its children may begin.
            self._next_list_ms = now_ms
            return
        behind = shard.behind_ms or 0
        interval = self._settings.catch_up_interval_ms if behind else self._settings.read_interval_ms
        self._next_read_ms[shard_id] = now_ms + interval

    def _try_again(self, error: BotoCoreError | ClientError) -> None:
        if not may_pass(error):
            raise unreadable(error, self._stream) from error
        self._trouble = reason_of(error)

    def _has_ended(self, listed: ListedShard) -> bool:
        shard = self._shards.get(listed.shard.shard_id)
        if shard is None:
            return False
        if shard.has_records:
            return shard.input_ended
        parents = [self._listed[parent] for parent in listed.shard.parents if parent in self._listed]
        return bool(parents) and all(self._has_ended(parent) for parent in parents)


class Stop(Protocol):
    """Something like `threading.Event`."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait for it, at most so many seconds; whether to end."""
        ...


def run_delivery(
    delivery: Delivery,
    *,
    stop: Stop,
    now_ms: Callable[[], int],
    on_progress: Callable[[DeliveryProgress], None] = lambda _: None,
    until_end_of_input: bool = False,
) -> DeliveryProgress:
    """Deliver until told to stop, or until the input has ended; then flush, and return where delivery stands.

    Raises
    ------
    StreamgaugeError
        As `Delivery.step` and `Delivery.flush`. Nothing is lost by it: the next run goes on from what is written down.
    """
    while not stop.is_set():
        due_ms = delivery.step(now_ms())
        on_progress(delivery.progress)
        if until_end_of_input and delivery.input_ended:
            break
        stop.wait(max(0, due_ms - now_ms()) / 1000)
    for attempt in range(_FLUSH_TRIES):
        try:
            delivery.flush(now_ms())
            break
        except StoreUnavailable:
            if attempt == _FLUSH_TRIES - 1:
                raise
            stop.wait(_BACK_OFF_MS / 1000)
    on_progress(delivery.progress)
    return delivery.progress


def _fingerprint(catalogue: Catalogue, mapping: EventMapping | None) -> str:
    schemas = [
        [event_type, version, catalogue.get(event_type, version).schema]
        for event_type in catalogue.types
        for version in catalogue.versions(event_type)
    ]
    text = msgspec.json.encode([schemas, repr(mapping)], order="deterministic")
    return sha256(text).hexdigest()
