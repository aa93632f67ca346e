"""What goes to Kinesis and comes back: requests in flight, their answers, retries, and the shard map's refreshes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamgauge.events.hash_key import hash_key
from streamgauge.events.position import Position
from streamgauge.events.shard_listing import ListedShard
from streamgauge.producers.client.delivery import Delivery
from streamgauge.producers.client.out_record import EntryAnswer, OutRecord, PutRequest
from streamgauge.producers.client.outstanding import Outstanding
from streamgauge.producers.client.retrier import Failure, classify
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.producers.client.stages import Stages
from streamgauge.producers.client.stats import ProducerStats

__all__ = ["Exchange"]


class Exchange:
    """Makes requests of what the stages hand over, and decides by the answers what becomes of each record."""

    def __init__(
        self,
        settings: ProducerSettings,
        stages: Stages,
        outstanding: Outstanding,
        stats: ProducerStats,
        *,
        now_ms: int,
    ) -> None:
        # configuration
        self._settings = settings
        # live
        self.control_holders: set[str] = set()
        """Shards that hold a record put by ExplicitHashKey and not aggregated: an end_of_input."""
        self._stages = stages
        self._outstanding = outstanding
        self._stats = stats
        self._requests: dict[int, PutRequest] = {}
        self._request_count = 0
        self._landed_elsewhere: list[tuple[OutRecord, str, int]] = []
        self._doubted: set[str] = set()
        self._map_wanted = False
        self._listing = False
        self._list_not_before_ms = now_ms
        self._lists_in_vain = 0

    @property
    def is_idle(self) -> bool:
        """Whether no answer is awaited and no record's shard is in doubt."""
        return not self._requests and not self._landed_elsewhere

    @property
    def can_request(self) -> bool:
        """Whether one more request may be in flight."""
        return len(self._requests) < self._settings.requests_in_flight_max

    def want_map(self, now_ms: int) -> None:
        """The shards should be listed anew; after listings in vain not at once."""
        if not self._map_wanted:
            self._map_wanted = True
            wait_ms = self._stages.retrier.delay_ms(self._lists_in_vain) if self._lists_in_vain else 0
            self._list_not_before_ms = now_ms + wait_ms

    def begin_listing(self, now_ms: int) -> bool:
        """Whether ListShards is to be called now; then its answer is awaited."""
        if not self._map_wanted or self._listing or self._list_not_before_ms > now_ms:
            return False
        self._listing = True
        self._stats.shard_lists += 1
        return True

    def listing_ms(self) -> int | None:
        """When `begin_listing` will say so."""
        return self._list_not_before_ms if self._map_wanted and not self._listing else None

    def next_request(self, now_ms: int, *, urgent: bool) -> PutRequest | None:
        """The next PutRecords call, if one may and should be made."""
        if not self.can_request:
            return None
        records = []
        for record in self._stages.take(now_ms, urgent=urgent):
            if self._is_overdue(record, now_ms):
                self._split_overdue(record, now_ms, now_ms)
                continue
            records.append(record)
            for event in record.events:
                if event.first_attempt_ms < 0:
                    event.first_attempt_ms = now_ms
        if not records:
            return None
        self._request_count += 1
        self._stats.requests += 1
        self._stats.records += len(records)
        shard_ids = frozenset(record.shard_id for record in records)
        request = PutRequest(self._request_count, now_ms, records, shard_ids)
        self._requests[request.request_id] = request
        self._note_busy_shards()
        return request

    def answered(self, request_id: int, answers: Sequence[EntryAnswer], now_ms: int) -> None:
        """PutRecords answered, record by record, in the request's order."""
        request = self._requests.pop(request_id, None)
        if request is None:  # abandoned meanwhile
            return
        if len(answers) != len(request.records):
            reason = f"PutRecords answered {len(answers)} records of {len(request.records)}"
            self._again_all(request, Failure.LOST, reason, now_ms)
            return
        again: list[OutRecord] = []
        for record, answer in zip(request.records, answers, strict=True):
            if answer.error_code is None and answer.shard_id is not None and answer.sequence_number is not None:
                self._landed(record, answer.shard_id, int(answer.sequence_number), now_ms)
                continue
            code = answer.error_code or "neither a sequence number nor an error code"
            if code == "ProvisionedThroughputExceededException":
                self._stats.records_throttled += 1
                self._stages.drain_limiter(record.shard_id, now_ms)
            reason = f"{code}: {answer.error_message}" if answer.error_message else code
            again += self._not_put(record, classify(code), reason, request.started_ms)
        self._send_again(again, now_ms)

    def failed(self, request_id: int, failure: Failure, reason: str, now_ms: int) -> None:
        """The PutRecords call as a whole had no success; `reason` is what callers will read."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._again_all(request, failure, reason, now_ms)

    def listed(self, shards: Iterable[ListedShard], now_ms: int) -> None:
        """ListShards answered: route everything anew that was meant for a shard which is closed now."""
        self._listing = self._map_wanted = False
        self._stages.set_map(shards)
        waiting, self._landed_elsewhere = self._landed_elsewhere, []
        misrouted: list[Delivery] = []
        for record, shard_id, sequence_number in waiting:
            hash_range = self._stages.map.hash_range(shard_id)
            if hash_range is None:  # ListShards is behind PutRecords
                self._landed_elsewhere.append((record, shard_id, sequence_number))
            elif all(hash_key(event.partition_key) in hash_range for event in record.events):
                self._acknowledge(record, shard_id, sequence_number)
            else:
                misrouted += record.events  # every consumer ignores the whole aggregate
        self._stats.misrouted_events += len(misrouted)
        self._stats.resent_events += len(misrouted)
        self._stages.reroute(misrouted, now_ms)
        self._doubted.clear()
        self._note_busy_shards()
        in_vain = bool(waiting) and len(self._landed_elsewhere) == len(waiting)
        self._lists_in_vain = self._lists_in_vain + 1 if in_vain else 0
        if self._landed_elsewhere:
            self.want_map(now_ms)

    def list_failed(self, reason: str, now_ms: int) -> None:
        """ListShards had no success: the old view stays, and is asked for again."""
        self._stats.last_error = reason
        self._listing = self._map_wanted = False
        self._lists_in_vain += 1
        self.want_map(now_ms)

    def remove_all(self) -> list[OutRecord]:
        """Forget everything in flight; its events may land yet."""
        records = [record for record, _, _ in self._landed_elsewhere]
        for request in self._requests.values():
            records += request.records
            for record in request.records:
                for event in record.events:
                    event.doubtful_ms = max(event.doubtful_ms, request.started_ms)
        self._requests.clear()
        self._landed_elsewhere.clear()
        return records

    def _landed(self, record: OutRecord, shard_id: str, sequence_number: int, now_ms: int) -> None:
        if shard_id != record.shard_id or not self._stages.map.is_open(shard_id):
            self.want_map(now_ms)
            self._doubted.add(record.shard_id)
        if shard_id != record.shard_id and record.aggregated:
            self._landed_elsewhere.append((record, shard_id, sequence_number))
        else:
            self._acknowledge(record, shard_id, sequence_number)

    def _acknowledge(self, record: OutRecord, shard_id: str, sequence_number: int) -> None:
        if record.explicit_hash_key is not None and not record.aggregated:
            self.control_holders.add(shard_id)
        acknowledge = self._outstanding.acknowledge
        for place, event in enumerate(record.events):
            acknowledge(event, shard_id, Position(sequence_number, place))

    def _again_all(self, request: PutRequest, failure: Failure, reason: str, now_ms: int) -> None:
        self._stats.requests_failed += 1
        again: list[OutRecord] = []
        for record in request.records:
            again += self._not_put(record, failure, reason, request.started_ms)
        self._send_again(again, now_ms)

    def _not_put(self, record: OutRecord, failure: Failure, reason: str, started_ms: int) -> list[OutRecord]:
        """Note why `record` was not acknowledged; give it back if it is worth another attempt."""
        self._stats.last_error = reason
        for event in record.events:
            event.refusal = reason
            if failure is Failure.LOST:
                event.doubtful_ms = max(event.doubtful_ms, started_ms)
        if failure is not Failure.PERMANENT:
            return [record]
        for event in record.events:
            self._outstanding.drop(event, reason)
        return []

    def _send_again(self, records: Sequence[OutRecord], now_ms: int) -> None:
        self._note_busy_shards()
        if not records:
            return
        due_ms = now_ms + self._stages.retrier.delay_ms(max(record.attempts for record in records))
        in_time: list[OutRecord] = []
        displaced: list[Delivery] = []
        for record in records:
            record.attempts += 1
            if self._is_overdue(record, due_ms):
                self._split_overdue(record, due_ms, now_ms)
                continue
            self._stats.resent_events += len(record.events)
            if self._stages.map.is_open(record.shard_id):
                in_time.append(record)
            else:  # closed while the record was on its way
                displaced += record.events
        self._stages.retry(in_time, due_ms)
        if displaced:
            self._stages.reroute(displaced, now_ms)

    def _note_busy_shards(self) -> None:
        """Where order holds the next record back: something is on its way, or the map is wrong there.

        A record that is on its way to a shard found closed holds up those that took its place, too.
        """
        busy = {record.shard_id for record, _, _ in self._landed_elsewhere} | self._doubted
        busy.update(*(request.shard_ids for request in self._requests.values()))
        self._stages.set_busy(busy.union(*(self._stages.map.heirs(shard_id) for shard_id in busy)))

    def _is_overdue(self, record: OutRecord, at_ms: int) -> bool:
        first_ms = record.first_attempt_ms()
        return first_ms is not None and at_ms > first_ms + self._settings.resend_horizon_ms

    def _split_overdue(self, record: OutRecord, at_ms: int, now_ms: int) -> None:
        """End the events whose horizon has passed at `at_ms`; the others go before what was put after them."""
        horizon_ms = self._settings.resend_horizon_ms
        others: list[Delivery] = []
        for event in record.events:
            if 0 <= event.first_attempt_ms < at_ms - horizon_ms:
                self._outstanding.drop(event, f"the resend horizon of {horizon_ms} ms has passed: {event.refusal}")
            else:
                others.append(event)
        if others:
            self._stages.reroute(others, now_ms)
