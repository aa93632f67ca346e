"""Rows put as plain JSON by bare PutRecords, as programs do that know nothing of this one.

They have no identity beside their position: a request whose answer is lost is sent again, and its rows then count
twice. The pipeline reads them through ``[event]``.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence

from streamgauge.events.errors import StreamgaugeError
from streamgauge.events.hash_key import hash_key
from streamgauge.events.records import MAX_RECORD_BYTES
from streamgauge.producers.client.delivery import Delivery
from streamgauge.producers.client.limiter import Limiter
from streamgauge.producers.client.out_record import OutRecord
from streamgauge.producers.client.ports import KinesisClient, failure_of, first_shards, put_records
from streamgauge.producers.client.retrier import Failure, Retrier, classify
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.producers.client.shard_map import ShardMap
from streamgauge.producers.load.files import BadRow, FileEvent

__all__ = ["RawPutFailed", "RawPutter", "put_raw_rows"]

_ATTEMPTS_MAX = 30
"""In a row, without any record getting through: with the back-off about two minutes."""


class RawPutFailed(StreamgaugeError):
    """Kinesis refused rows for good, or for too long."""


class RawPutter:
    """Collects rows into PutRecords requests, one at a time, within the limits of each shard.

    Only refused records are sent again, before anything newer. ``put`` counts the rows that Kinesis has taken,
    ``too_large`` those that no record holds, ``unanswered`` requests that were sent again because no answer came.
    """

    def __init__(
        self,
        client: KinesisClient,
        *,
        stream: str,
        clock: Callable[[], int],
        settings: ProducerSettings | None = None,
        rng: random.Random | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        # configuration
        self._settings = settings or ProducerSettings()
        self._client = client
        self._stream = stream
        self._clock = clock
        self._stop = stop or threading.Event()
        # live
        self.put = 0
        self.too_large = 0
        self.unanswered = 0
        self.throttled = 0
        self._batch: list[OutRecord] = []
        self._batch_bytes = 0
        self._limiter = Limiter(self._settings.shard_bytes_per_s, self._settings.shard_records_per_s)
        self._retrier = Retrier(
            rng or random.Random(),  # noqa: S311 (jitter)
            base_ms=self._settings.backoff_base_ms,
            max_ms=self._settings.backoff_max_ms,
        )
        self._map = ShardMap(first_shards(client, stream))

    def add(self, payload: bytes, partition_key: str) -> bool:
        """Take one row; sends a request when one is full. False for a row that no record holds."""
        shard_id = self._map.predict(hash_key(partition_key))
        event = Delivery(payload, partition_key, size=len(payload))
        record = OutRecord.plain(shard_id, event, self._clock())
        if record.size > MAX_RECORD_BYTES:
            self.too_large += 1
            return False
        if (
            len(self._batch) == self._settings.request_records_max
            or self._batch_bytes + record.size > self._settings.request_bytes_max
        ):
            self.flush()
        self._batch.append(record)
        self._batch_bytes += record.size
        return True

    def flush(self) -> None:
        """Send what is here, until all of it is taken.

        Raises
        ------
        RawPutFailed
            A refusal that is final, or thirty attempts in a row without any success.
        """
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        attempts = 0
        while batch:
            self._wait_for_shards(batch)
            refused, reason = self._attempt(batch)
            if not refused:
                return
            attempts = 0 if len(refused) < len(batch) else attempts + 1
            if attempts == _ATTEMPTS_MAX:
                raise RawPutFailed(f"{reason} ({attempts} attempts in a row)", where=f"stream {self._stream}")
            self._stop.wait(self._retrier.delay_ms(attempts) / 1000)
            batch = refused

    def _wait_for_shards(self, batch: Sequence[OutRecord]) -> None:
        for record in batch:
            now_ms = self._clock()
            ready_ms = self._limiter.ready_ms(record.shard_id, record.size, now_ms)
            if ready_ms > now_ms:
                self._stop.wait((ready_ms - now_ms) / 1000)
            self._limiter.take(record.shard_id, record.size, self._clock())

    def _attempt(self, batch: list[OutRecord]) -> tuple[list[OutRecord], str]:
        """One call: the records to send again, and why."""
        try:
            answers = put_records(self._client, self._stream, batch)
        except Exception as error:
            failure, reason = failure_of(error)
            if failure is Failure.PERMANENT:
                raise RawPutFailed(reason, where=f"stream {self._stream}") from error
            self.unanswered += failure is Failure.LOST
            return batch, reason
        refused: list[OutRecord] = []
        reason = ""
        for record, answer in zip(batch, answers, strict=True):
            if answer.error_code is None:
                self.put += 1
                continue
            reason = f"{answer.error_code}: {answer.error_message or ''}"
            if classify(answer.error_code) is Failure.PERMANENT:
                raise RawPutFailed(reason, where=f"stream {self._stream}")
            self.throttled += 1
            refused.append(record)
        return refused, reason


def put_raw_rows(
    putter: RawPutter,
    rows: Iterable[FileEvent | BadRow],
    *,
    on_bad_row: Callable[[BadRow], None],
    on_progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Put the data of `rows` as they are, under their keys; return how many rows the stream has taken.

    `on_progress` is called with that number after each thousand rows.
    """
    for number, row in enumerate(rows, start=1):
        if stop is not None and stop.is_set():
            break
        if isinstance(row, BadRow):
            on_bad_row(row)
        elif not putter.add(row.data, row.key):
            on_bad_row(BadRow(row.line, f"larger than a record holds ({MAX_RECORD_BYTES} bytes)"))
        if on_progress is not None and number % 1_000 == 0:
            on_progress(putter.put)
    putter.flush()
    return putter.put
