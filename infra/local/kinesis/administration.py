"""What changes a stream: resharding, retention, and what is only described. A change is done when its call returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streamgauge.infra.local.kinesis.account import Account
from streamgauge.infra.local.kinesis.errors import (
    InvalidArgumentException,
    LimitExceededException,
    ValidationException,
)
from streamgauge.infra.local.kinesis.limits import DAY_MS
from streamgauge.infra.local.kinesis.streams import EncryptionType, Stream, StreamMode

__all__ = ["Administration"]

_HOUR_MS = 3_600_000
_RETENTION_HOURS = (24, 8_760)


class Administration(Account):
    """Changes to the streams of an `Account`."""

    def split_shard(self, stream: str, shard_id: str, new_starting_hash_key: int, *, now_ms: int) -> None:
        """Split a shard in two; see `Stream.split`."""
        found = self._provisioned("SplitShard", stream, now_ms)
        self._check_shards(1)
        found.split(shard_id, new_starting_hash_key, now_ms)
        self._after("SplitShard", found.name, now_ms)

    def merge_shards(self, stream: str, shard_id: str, adjacent_shard_id: str, *, now_ms: int) -> None:
        """Merge two adjacent shards; see `Stream.merge`."""
        found = self._provisioned("MergeShards", stream, now_ms)
        found.merge(shard_id, adjacent_shard_id, now_ms)
        self._after("MergeShards", found.name, now_ms)

    def update_shard_count(self, stream: str, target: int, *, now_ms: int) -> tuple[int, Stream]:
        """Bring a stream to `target` even shards; return how many it had, and the stream.

        Raises
        ------
        LimitExceededException
            More than double, less than half, or too often within 24 hours. Not checked without limits.
        """
        found = self._provisioned("UpdateShardCount", stream, now_ms)
        before = len(found.open)
        if target < 1:
            raise ValidationException("TargetShardCount must be at least 1")
        if self.limits.enforced:
            found.rescaled_ms = [at for at in found.rescaled_ms if now_ms - at < DAY_MS]
            counts = f"Current open shard count: {before}, Target shard count: {target}"
            if target > 2 * before:
                raise LimitExceededException(
                    f"UpdateShardCount cannot scale up over double your current open shard count. {counts}"
                )
            if 2 * target < before:
                raise LimitExceededException(
                    f"UpdateShardCount cannot scale down below half your current open shard count. {counts}"
                )
            if len(found.rescaled_ms) >= self.limits.rescalings:
                raise LimitExceededException(
                    f"UpdateShardCount was called {self.limits.rescalings} times on stream {found.name} under account "
                    f"{self.account} within 24 hours"
                )
        self._check_shards(max(0, target - before))
        found.scale(target, now_ms)
        found.rescaled_ms.append(now_ms)
        self._after("UpdateShardCount", found.name, now_ms)
        return before, found

    def increase_retention(self, stream: str, hours: int, *, now_ms: int) -> None:
        """Keep records longer."""
        self._set_retention("IncreaseStreamRetentionPeriod", stream, hours, now_ms)

    def decrease_retention(self, stream: str, hours: int, *, now_ms: int) -> None:
        """Keep records for a shorter time."""
        self._set_retention("DecreaseStreamRetentionPeriod", stream, hours, now_ms)

    def add_tags(self, stream: str, tags: Mapping[str, str], *, now_ms: int) -> None:
        """Set tags."""
        found = self._named("AddTagsToStream", stream, now_ms)
        self._tag(found, tags)
        self._after("AddTagsToStream", found.name, now_ms)

    def remove_tags(self, stream: str, keys: Collection[str], *, now_ms: int) -> None:
        """Remove tags; absent ones are no error."""
        found = self._named("RemoveTagsFromStream", stream, now_ms)
        for key in keys:
            found.tags.pop(key, None)
        self._after("RemoveTagsFromStream", found.name, now_ms)

    def set_encryption(self, stream: str, encryption: EncryptionType, key_id: str | None, *, now_ms: int) -> None:
        """Describe the stream as encrypted or not. Nothing is encrypted: records lie in this process's memory."""
        operation = "StopStreamEncryption" if encryption == "NONE" else "StartStreamEncryption"
        found = self._named(operation, stream, now_ms)
        found.encryption, found.key_id = encryption, key_id
        self._after(operation, found.name, now_ms)

    def set_mode(self, stream: str, mode: StreamMode, *, now_ms: int) -> None:
        """Describe the stream as provisioned or on demand; on demand it does not scale by itself."""
        found = self._named("UpdateStreamMode", stream, now_ms)
        found.mode = mode
        self._after("UpdateStreamMode", found.name, now_ms)

    def set_max_record_size(self, stream: str, kib: int, *, now_ms: int) -> None:
        """Change how large a record, its key included, may be."""
        found = self._named("UpdateMaxRecordSize", stream, now_ms)
        self._set_max_record(found, kib)
        self._after("UpdateMaxRecordSize", found.name, now_ms)

    def _provisioned(self, operation: str, stream: str, now_ms: int) -> Stream:
        found = self._named(operation, stream, now_ms)
        if found.mode != "PROVISIONED":
            raise ValidationException(
                f"{operation} is not allowed on stream {found.name} under account {self.account} in ON_DEMAND mode"
            )
        return found

    def _set_retention(self, operation: str, stream: str, hours: int, now_ms: int) -> None:
        found = self._named(operation, stream, now_ms)
        least, most = _RETENTION_HOURS
        current = found.retention_ms // _HOUR_MS
        if hours < least:
            raise InvalidArgumentException(
                f"Minimum allowed retention period is {least} hours. Requested retention period ({hours} hours) is "
                "too short."
            )
        if hours > most:
            raise InvalidArgumentException(
                f"Maximum allowed retention period is {most} hours. Requested retention period ({hours} hours) is "
                "too long."
            )
        longer = operation == "IncreaseStreamRetentionPeriod"
        if (hours < current) if longer else (hours > current):
            raise InvalidArgumentException(
                f"Requested retention period ({hours} hours) for stream {found.name} can not be "
                f"{'shorter' if longer else 'longer'} than existing retention period ({current} hours). "
                f"Use {'Decrease' if longer else 'Increase'}RetentionPeriod API."
            )
        found.set_retention(hours * _HOUR_MS, now_ms)
        self._after(operation, found.name, now_ms)
