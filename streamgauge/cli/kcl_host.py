"""``streamgauge process --host kcl``: the daemon of the Amazon KCL with this version's children."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from uuid import uuid4

from streamgauge.cli.context import Workplace
from streamgauge.cli.kcl_options import KclOptions
from streamgauge.cli.output import say
from streamgauge.cli.pipeline_state import resources, state_store
from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import LOCAL_CREDENTIALS
from streamgauge.processors.commit.core_engine import core_engine, read_shard_state
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.ports import StoreUnavailable
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.kcl.child_log import LogEntry
from streamgauge.processors.hosts.kcl.child_settings import ChildSettings
from streamgauge.processors.hosts.kcl.children import Children
from streamgauge.processors.hosts.kcl.daemon import CHILD_COMMAND, Daemon, LogTail
from streamgauge.processors.hosts.kcl.health import note
from streamgauge.processors.hosts.kcl.host import HostSettings, run_kcl
from streamgauge.processors.hosts.kcl.installation import find_installation
from streamgauge.processors.hosts.kcl.leases import LeaseTable
from streamgauge.processors.hosts.kcl.properties import DaemonSettings
from streamgauge.processors.hosts.progress import LocalProgress
from streamgauge.processors.hosts.shard_run import LocalSettings
from streamgauge.processors.hosts.stream_shards import StreamUnreadable, list_shards

__all__ = ["lease_table_name", "run_kcl_host"]

_CHILD = "streamgauge.cli.kcl_child"
_CHILDREN_LOG = "children.log"
# What the daemon itself needs to end after its children have.
_GRACE_MARGIN_S = 20.0


def lease_table_name(place: Workplace, pipeline: Pipeline) -> str:
    """The lease table of a pipeline: the one that the template made, or one that is made when it is missing."""
    return place.outputs.get("LeaseTableName") or f"streamgauge-{pipeline.name}-{pipeline.state_epoch}"


def run_kcl_host(
    place: Workplace,
    pipeline: Pipeline,
    *,
    options: KclOptions,
    settings: LocalSettings,
    stop: threading.Event,
    until_input_ended: bool,
    on_progress: Callable[[LocalProgress], None],
) -> LocalProgress:
    """Run the KCL host until `stop` is set, or until the end of the input if so asked.

    Raises
    ------
    StreamgaugeError
        What keeps it from working, in one line; the daemon is not left behind.
    """
    installation = find_installation(os.environ)
    _check_region(place)
    application = options.lease_table or lease_table_name(place, pipeline)
    table = LeaseTable(place.clients.dynamodb, application)
    daemon_settings = _daemon_settings(place, application, options)
    with _folder(options.logs) as folder:
        outside = _Outside(place, pipeline, table, settings, folder)
        environment = _environment(place, settings, folder)

        def start() -> Daemon:
            say(f"starting the KCL's daemon; its log: {folder / 'daemon.log'}")
            return Daemon(
                installation,
                daemon_settings,
                folder=folder,
                child=[sys.executable, "-m", _CHILD],
                environment=environment,
                # The local Kinesis has no CBOR.
                java_options=("-Daws.cborEnabled=false",) if place.clients.endpoints.is_local("kinesis") else (),
            )

        try:
            children = run_kcl(
                start,
                outside.check,
                tail=LogTail(folder / _CHILDREN_LOG),
                stop=stop,
                settings=HostSettings(grace_s=options.grace_s + _GRACE_MARGIN_S),
                is_finished=outside.is_input_ended if until_input_ended else _never,
                on_entry=_say_entry,
                on_progress=lambda children: on_progress(children.progress),
            )
        finally:
            _release(table, daemon_settings.worker)
    return children.progress


class _Outside:
    """The stream, the state and the leases, as the host looks at them: at its start, and every ten seconds."""

    def __init__(
        self, place: Workplace, pipeline: Pipeline, table: LeaseTable, settings: LocalSettings, folder: Path
    ) -> None:
        self._place = place
        self._pipeline = pipeline
        self._table = table
        self._settings = settings
        self._folder = folder
        self._store = state_store(place, pipeline)
        self._engine = core_engine(place.output("StreamArn"))
        self._is_prepared = False
        self._answered_s = monotonic()

    def check(self) -> None:
        """See that the stream and the stores answer; make what the daemon finds at its start."""
        try:
            listed = list_shards(self._place.clients.kinesis, self._pipeline.stream)
            rows = register_shards(self._store, listed, start=self._settings.start)
            if not self._is_prepared:
                arn = self._place.output("StreamArn")
                self._table.prepare(rows, pipeline=self._pipeline.name, stream_arn=arn)
        except (StoreUnavailable, StreamUnreadable) as error:
            # What has never worked is more likely wrong than down.
            may_pass = self._is_prepared and (isinstance(error, StoreUnavailable) or error.is_transient)
            if not may_pass or monotonic() - self._answered_s > self._settings.outage_s:
                raise
            return
        self._is_prepared = True
        self._answered_s = monotonic()
        note(self._folder)

    def is_input_ended(self, children: Children) -> bool:
        """Whether every shard has seen the end of the input: ours as our children say, the others by their state."""
        if not children.finished:
            return False
        ours = {shard.shard_id for shard in children.progress.shards if not shard.ended_by}
        for row in self._store.rows():
            shard_id = row.shard.shard_id
            if row.sealed or shard_id in children.finished:
                continue
            if shard_id in ours:
                return False
            state = read_shard_state(self._pipeline, self._store, shard_id, engine=self._engine)
            if state is None or not state.engine.input_ended or len(state.outbox):
                return False
        return True


def _never(children: Children) -> bool:  # noqa: ARG001 - as `run_kcl` calls it
    return False


def _daemon_settings(place: Workplace, application: str, options: KclOptions) -> DaemonSettings:
    endpoints = place.clients.endpoints
    return DaemonSettings(
        application=application,
        stream_arn=place.output("StreamArn"),
        region=place.clients.region,
        worker=str(uuid4()),
        command=CHILD_COMMAND,
        mode=options.mode,
        fan_out=options.fan_out,
        metrics=options.metrics,
        failover_ms=int(options.failover_s * 1000),
        grace_ms=int(options.grace_s * 1000),
        coordinator_table=place.outputs.get("CoordinatorTableName"),
        worker_metrics_table=place.outputs.get("WorkerMetricsTableName"),
        kinesis_endpoint=endpoints.url("kinesis"),
        dynamodb_endpoint=endpoints.url("dynamodb"),
    )


def _environment(place: Workplace, settings: LocalSettings, folder: Path) -> dict[str, str]:
    """That of the daemon and its children: the same services, region and credentials as ours."""
    endpoints = place.clients.endpoints
    environment = dict(os.environ) | resources(place).environment()
    environment["AWS_REGION"] = environment["AWS_DEFAULT_REGION"] = place.clients.region
    if endpoints.aws is not None:
        environment["AWS_ENDPOINT_URL"] = endpoints.aws
    if endpoints.kinesis is not None:
        environment["AWS_ENDPOINT_URL_KINESIS"] = endpoints.kinesis
    if endpoints.are_local:
        environment["AWS_ACCESS_KEY_ID"] = LOCAL_CREDENTIALS.access_key
        environment["AWS_SECRET_ACCESS_KEY"] = LOCAL_CREDENTIALS.secret_key
        environment["AWS_EC2_METADATA_DISABLED"] = "true"
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            environment.pop(name, None)
    told = ChildSettings(
        pipeline_file=str(place.pipeline_file.absolute()),
        log_file=str(folder / _CHILDREN_LOG),
        live=place.clients.live,
        launcher=os.getpid(),
        settings=settings,
    )
    return environment | told.environment()


def _check_region(place: Workplace) -> None:
    region = place.output("StreamArn").split(":")[3]
    if region != place.clients.region:
        raise StreamgaugeError(
            f"the stack's stream is in {region}, and calls would go to {place.clients.region}",
            where="AWS configuration",
            remedy=f"Set AWS_DEFAULT_REGION={region}",
        )


def _release(table: LeaseTable, worker: str) -> None:
    try:
        table.release(worker)
    except StreamgaugeError as error:
        say(f"{error}; other workers take the leases once they have expired")


def _say_entry(entry: LogEntry) -> None:
    if entry.event == "crashed":
        say(f"{entry.shard}: a child crashed: {entry.message.splitlines()[-1]}")
    elif entry.level != "info" or entry.event in {"sealed", "lease_lost"}:
        say(f"{entry.shard}: {entry.message}")


@contextmanager
def _folder(logs: Path | None) -> Iterator[Path]:
    """A folder for one run. A temporary one is removed if the run ended well."""
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        yield logs.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="streamgauge-kcl-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
