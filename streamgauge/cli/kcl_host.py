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
from uuid import uuid4

from streamgauge.cli.context import Workplace
from streamgauge.cli.kcl_options import KclOptions
from streamgauge.cli.output import say
from streamgauge.cli.stores import resources, state_store
from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.clients import LOCAL_CREDENTIALS
from streamgauge.processors.commit.core_engine import core_engine, read_shard_state
from streamgauge.processors.commit.lineage import register_shards
from streamgauge.processors.commit.ports import StateStore
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.kcl.child_log import LogEntry
from streamgauge.processors.hosts.kcl.child_settings import ChildSettings
from streamgauge.processors.hosts.kcl.children import Children
from streamgauge.processors.hosts.kcl.daemon import CHILD_COMMAND, Daemon, LogTail
from streamgauge.processors.hosts.kcl.host import HostSettings, run_kcl
from streamgauge.processors.hosts.kcl.installation import find_installation
from streamgauge.processors.hosts.kcl.leases import LeaseTable
from streamgauge.processors.hosts.kcl.properties import DaemonSettings
from streamgauge.processors.hosts.progress import LocalProgress
from streamgauge.processors.hosts.shard_run import LocalSettings
from streamgauge.processors.hosts.stream_shards import list_shards

__all__ = ["lease_table_name", "run_kcl_host"]

_CHILD = "streamgauge.cli.kcl_child"
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
    store = state_store(place, pipeline)
    application = options.lease_table or lease_table_name(place, pipeline)
    table = LeaseTable(place.clients.dynamodb, application)
    is_prepared = False

    def check() -> None:
        nonlocal is_prepared
        _check_region(place)
        listed = list_shards(place.clients.kinesis, pipeline.stream)
        rows = register_shards(store, listed, start=settings.start)
        if not is_prepared:
            table.prepare(rows, pipeline=pipeline.name, stream_arn=place.output("StreamArn"))
            is_prepared = True

    with _folder(options.logs) as folder:
        log = folder / "children.log"
        daemon_settings = _daemon_settings(place, application, options)
        told = ChildSettings(
            pipeline_file=str(place.pipeline_file.absolute()),
            log_file=str(log),
            live=place.clients.live,
            settings=settings,
        )
        environment = child_environment(place) | told.environment()

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

        is_done = is_input_ended(place, pipeline, store) if until_input_ended else _never
        try:
            children = run_kcl(
                start,
                check,
                tail=LogTail(log),
                stop=stop,
                settings=HostSettings(grace_s=options.grace_s + _GRACE_MARGIN_S),
                is_finished=is_done,
                on_entry=_say_entry,
                on_progress=lambda children: on_progress(children.progress),
            )
        finally:
            _release(table, daemon_settings.worker)
    return children.progress


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


def child_environment(place: Workplace) -> dict[str, str]:
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
    return environment


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


def _never(children: Children) -> bool:  # noqa: ARG001 - as `run_kcl` calls it
    return False


def is_input_ended(place: Workplace, pipeline: Pipeline, store: StateStore) -> Callable[[Children], bool]:
    """Whether every shard has seen the end of the input: ours as our children say, the others by their state."""
    engine = core_engine(place.output("StreamArn"))

    def is_finished(children: Children) -> bool:
        if not children.finished:
            return False
        for row in store.rows():
            if row.sealed or row.shard.shard_id in children.finished:
                continue
            if any(shard.shard_id == row.shard.shard_id and not shard.ended_by for shard in children.progress.shards):
                return False
            state = read_shard_state(pipeline, store, row.shard.shard_id, engine=engine)
            if state is None or not state.engine.input_ended or len(state.outbox):
                return False
        return True

    return is_finished


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
