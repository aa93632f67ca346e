"""``streamgauge lag``: how far each shard is processed, whatever host does it."""

from __future__ import annotations

import os

import click

from streamgauge.cli.context import home, live_options, workplace
from streamgauge.cli.kcl_host import lease_table_name
from streamgauge.cli.output import print_json, print_table, say
from streamgauge.cli.pipeline_state import state_store
from streamgauge.events.hash_key import FULL_RANGE
from streamgauge.events.times import format_duration, rfc3339
from streamgauge.infra.clients import Clients
from streamgauge.infra.local.stack import load_stack
from streamgauge.processors.hosts.kcl.leases import Lease, LeaseTable
from streamgauge.processors.hosts.lag import ShardLag, StreamLag, read_lag
from streamgauge.processors.hosts.pipeline_file import load_pipeline
from streamgauge.processors.hosts.stream_shards import list_shards
from streamgauge.settings import Endpoints

__all__ = ["command"]

_POSITION_WIDTH = 16


@click.command("lag")
@click.option("--pipeline", metavar="FILE", help="The pipeline file; that of the local stack without.")
@click.option("--stream", metavar="NAME", help="Look at any stream, without a pipeline and a stack of ours.")
@click.option("--lease-table", metavar="NAME", help="The lease table of the KCL application that processes it.")
@click.option("--json", "as_json", is_flag=True, help="Print the shards as JSON.")
@live_options
def command(
    *,
    pipeline: str | None,
    stream: str | None,
    lease_table: str | None,
    as_json: bool,
    live: bool,
    stack: str | None,
) -> int:
    """Show how far each shard is processed: its owner, the age of what is not read yet, where its state stands.

    It only reads, and takes one or two reads of each shard that is not sealed. With --stream it needs no pipeline:
    `streamgauge lag --stream NAME --live` shows the shards of any stream, and with --lease-table how far the KCL
    application of that table is.
    """
    if stream is not None:
        lag = _of_stream(stream, lease_table, pipeline=pipeline, live=live, stack=stack)
        title = f"stream {stream}"
    else:
        place = workplace(pipeline=pipeline, live=live, stack=stack)
        definition = load_pipeline(place.pipeline_file)
        lag = read_lag(
            place.clients.kinesis,
            definition.stream,
            listed=list_shards(place.clients.kinesis, definition.stream),
            rows=state_store(place, definition).rows(),
            leases=_leases(place.clients, lease_table or lease_table_name(place, definition), wanted=bool(lease_table)),
        )
        title = f"{definition.name}: stream {definition.stream}"
    if as_json:
        print_json(_document(lag))
    else:
        _print(title, lag)
    return 0


def _of_stream(
    stream: str, lease_table: str | None, *, pipeline: str | None, live: bool, stack: str | None
) -> StreamLag:
    if pipeline is not None or stack is not None:
        raise click.UsageError("--stream looks at a stream by itself: leave --pipeline and --stack out")
    if live:
        clients = Clients(Endpoints.from_environment(os.environ), live=True)
    else:
        info = load_stack(home())
        clients = Clients(Endpoints.from_environment(os.environ, stack=info.endpoints), region=info.region)
    leases = [] if lease_table is None else _leases(clients, lease_table, wanted=True)
    return read_lag(clients.kinesis, stream, listed=list_shards(clients.kinesis, stream), leases=leases)


def _leases(clients: Clients, name: str, *, wanted: bool) -> list[Lease]:
    found = LeaseTable(clients.dynamodb, name).leases()
    if found is None and wanted:
        say(f"there is no lease table {name}")
    return found or []


def _print(title: str, lag: StreamLag) -> None:
    has_leases = any(shard.checkpoint is not None for shard in lag.shards)
    columns = ["shard", "state", "keys", "sealed parents", "owner", "age", "behind", "state at", "saved"]
    print_table(
        title,
        columns + (["lease", "checkpoint"] if has_leases else []),
        [_cells(shard) + ([shard.lease_owner, _short(shard.checkpoint)] if has_leases else []) for shard in lag.shards],
    )
    for shard in lag.shards:
        if shard.trouble is not None:
            say(f"{shard.shard_id}: {shard.trouble}")


def _cells(shard: ShardLag) -> list[object]:
    return [
        shard.shard_id,
        shard.state,
        _share(shard),
        f"{len(shard.sealed_parents)} of {len(shard.parents)}" if shard.parents else None,
        shard.owner,
        _duration(shard.iterator_age_ms),
        _duration(shard.behind_ms),
        None if shard.position is None else _short(str(shard.position)),
        None if shard.committed_at_ms is None else rfc3339(shard.committed_at_ms),
    ]


def _share(shard: ShardLag) -> str:
    whole = FULL_RANGE.last + 1
    first, last = shard.hash_range.first / whole, (shard.hash_range.last + 1) / whole
    return f"{first:.1%} to {last:.1%}"


def _short(position: str | None) -> str | None:
    """The end of a position, by which two of a shard are told apart; --json has all of it."""
    return position if position is None or len(position) <= _POSITION_WIDTH else "…" + position[-_POSITION_WIDTH:]


def _duration(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else format_duration(milliseconds)


def _document(lag: StreamLag) -> dict[str, object]:
    return {
        "iterator_age_ms": lag.iterator_age_ms,
        "shards": [
            {
                "shard_id": shard.shard_id,
                "state": shard.state,
                # As text: they are longer than the integers of most JSON readers.
                "hash_range": [str(shard.hash_range.first), str(shard.hash_range.last)],
                "parents": {parent: parent in shard.sealed_parents for parent in shard.parents},
                "owner": shard.owner,
                "position": None if shard.position is None else str(shard.position),
                "committed_at": None if shard.committed_at_ms is None else rfc3339(shard.committed_at_ms),
                "lease_owner": shard.lease_owner,
                "checkpoint": shard.checkpoint,
                "iterator_age_ms": shard.iterator_age_ms,
                "behind_ms": shard.behind_ms,
                "trouble": shard.trouble,
            }
            for shard in lag.shards
        ],
    }
