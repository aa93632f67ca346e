"""The daemon's properties, made from settings. Why the defaults are so: ``docs/adr/0027-kcl-client-mode.md``.

Source of the names: ``MultiLangDaemonConfiguration`` of amazon-kinesis-client-multilang 3.1.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["LOGBACK", "ClientMode", "DaemonSettings", "daemon_properties"]


class ClientMode(StrEnum):
    """How workers share leases: as in KCL 2.x, by their number, or as in 3.x, by the workers' load."""

    COMPATIBLE_2X = "2x"
    V3 = "3x"


_CLIENT_VERSION = {
    ClientMode.COMPATIBLE_2X: "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X",
    ClientMode.V3: "CLIENT_VERSION_CONFIG_3X",
}


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """What a daemon is told.

    ``application`` names the lease table, and the two tables beside it where these have no names of their own; it is
    the namespace of the KCL's metrics. ``worker`` distinguishes the daemons of one application,
    and is kept when one is started again, which then has its leases at once. ``failover_ms``: a lease that was not
    renewed for so long is taken by another worker. ``grace_ms``: how long a stop waits for the children. Endpoints are
    those of a local stack, None for AWS. ``fan_out`` subscribes to each shard instead of polling it.
    """

    application: str
    stream_arn: str
    region: str
    worker: str
    command: str
    mode: ClientMode = ClientMode.COMPATIBLE_2X
    fan_out: bool = False
    metrics: str = "NONE"
    failover_ms: int = 10_000
    grace_ms: int = 30_000
    read_interval_ms: int = 1_000
    max_records: int = 10_000
    coordinator_table: str | None = None
    worker_metrics_table: str | None = None
    kinesis_endpoint: str | None = None
    dynamodb_endpoint: str | None = None


def daemon_properties(settings: DaemonSettings) -> str:
    """The text of the properties file."""
    values: dict[str, object] = {
        "applicationName": settings.application,
        "streamArn": settings.stream_arn,
        "streamName": settings.stream_arn.rpartition("/")[2],
        "regionName": settings.region,
        "workerId": settings.worker,
        "executableName": settings.command,
        "processingLanguage": "python",
        "AwsCredentialsProvider": "DefaultCredentialsProvider",
        "clientVersionConfig": _CLIENT_VERSION[settings.mode],
        "initialPositionInStream": "TRIM_HORIZON",
        "retrievalMode": "FANOUT" if settings.fan_out else "POLLING",
        # A batch is committed after its time although nothing follows it.
        "callProcessRecordsEvenForEmptyRecordList": "true",
        "failoverTimeMillis": settings.failover_ms,
        # 0, the default, means that shutdownRequested never comes.
        "shutdownGraceMillis": settings.grace_ms,
        "metricsLevel": settings.metrics,
        # Children of a reshard wait for their parents: they are few, and looking costs one read of their leases.
        "parentShardPollIntervalMillis": 1_000,
        "shardSyncIntervalMillis": 30_000,
        "taskBackoffTimeMillis": 500,
    }
    if not settings.fan_out:
        values["idleTimeBetweenReadsInMillis"] = settings.read_interval_ms
        values["maxRecords"] = settings.max_records
    values |= {
        "coordinatorStateTableName": settings.coordinator_table,
        "workerMetricsTableName": settings.worker_metrics_table,
        "kinesisEndpoint": settings.kinesis_endpoint,
        "dynamoDBEndpoint": settings.dynamodb_endpoint,
    }
    return "".join(f"{name} = {_escaped(str(value))}\n" for name, value in values.items() if value is not None)


def _escaped(value: str) -> str:
    """As ``java.util.Properties`` reads it, which knows ASCII and its own escapes."""
    text = value.replace("\\", "\\\\").replace("\n", "\\n")
    return re.sub(r"[^\x20-\x7e]", lambda found: "".join(f"\\u{unit:04x}" for unit in _utf16(found[0])), text)


def _utf16(character: str) -> list[int]:
    encoded = character.encode("utf-16-be")
    return [int.from_bytes(encoded[index : index + 2], "big") for index in range(0, len(encoded), 2)]


LOGBACK = """\
<configuration>
  <appender name="LOG" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{1} - %msg%n</pattern></encoder>
  </appender>
  <!-- A line for each message to and from a child says little, and costs more than the message. -->
  <logger name="software.amazon.kinesis.multilang" level="WARN"/>
  <root level="INFO"><appender-ref ref="LOG"/></root>
</configuration>
"""
