"""Every archived position in one table of an in-memory database, and what became of each by the archive alone.

Nothing of the processing core decides here which events are new, accepted, or of which window: that is the point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.dataset as ds

from streamgauge.events.catalogue import Catalogue, UnknownVersion
from streamgauge.events.decoders import data_struct, field_getter
from streamgauge.events.envelope import RESERVED_TYPE_PREFIX, SOURCE_PREFIX, InvalidEvent
from streamgauge.events.mapping import read_record
from streamgauge.events.position import Position
from streamgauge.events.times import instant_ms
from streamgauge.processors.commit.ports import ShardRow
from streamgauge.processors.core.definition import Pipeline
from streamgauge.sinks.archive.layout import CONTROL, LEDGER, MISROUTED, UNARCHIVABLE
from streamgauge.sinks.audit.stores import Stores

__all__ = ["ArchivedPositions", "field_column"]

_SQL_TYPES = {"integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN", "string": "VARCHAR"}
_ENVELOPE = ("subject", "partitionkey", "type", "source")
# Of these no identity can be read, so each copy fails by itself.
_WITHOUT_IDENTITY = "('malformed_json', 'corrupt_aggregate', 'misrouted_aggregate')"
_CLASSES = {CONTROL: "control", LEDGER: "ledger", MISROUTED: "misrouted"}
_OWN = r"^urn:streamgauge:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:w[0-9]+$"


def field_column(path: str) -> str:
    """The SQL name of a field of the event."""
    return '"' + path.replace('"', '""') + '"'


class ArchivedPositions:
    """The archive up to the cuts, in DuckDB.

    Tables: ``archived`` (every row, doubles included), ``positions`` (each once, in order, with whether it is a
    duplicate), ``accepted`` (what the pipeline's aggregates must hold, with the fields that they name), ``unapplied``
    (what stands behind the cut of a shard that has been handed over, and so is applied by nobody).
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._pipeline = stores.pipeline
        self.fields = _named_fields(stores.pipeline)
        self.connection = duckdb.connect(config={"python_enable_replacements": "false"})
        self.connection.execute("SET TimeZone = 'UTC'")
        self._load()
        self._order()
        self._accept()

    def close(self) -> None:
        """Free the memory."""
        self.connection.close()

    def count(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """The single number that a query gives."""
        (value,) = self.rows(sql, parameters)[0]
        assert isinstance(value, int)
        return value

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """The rows that a query gives."""
        return self.connection.execute(sql, list(parameters)).fetchall()

    def register(self, name: str, table: pa.Table | ds.Dataset) -> None:
        """Give a table to the queries."""
        self.connection.register(name, table)

    def _load(self) -> None:
        self._register_lineage()
        fields = "".join(f", {field_column(path)} {kind}" for path, kind in self.fields.items())
        self.connection.execute(
            "CREATE TABLE archived (shard_id VARCHAR, number VARCHAR, sub BIGINT, arrival_ms BIGINT, class VARCHAR, "
            f"event_type VARCHAR, source_of VARCHAR, identity VARCHAR, time_ms BIGINT, payload BLOB{fields})"
        )
        self.connection.execute("CREATE TABLE unapplied (shard_id VARCHAR, number VARCHAR, sub BIGINT)")
        place = "(length(sequence_number), sequence_number, sub_sequence_number)"
        # A row with nulls would compare as the highest of all.
        within = f"(cut_number IS NOT NULL AND {place} <= (length(cut_number), cut_number, cut_sub))"
        begun = "epoch_ms(arrival) >= start_ms"
        for table in self._stores.tables.schemas:
            self.register("source_table", self._stores.tables.dataset(table))
            self.connection.execute(
                f"INSERT INTO archived SELECT shard_id, sequence_number, sub_sequence_number, epoch_ms(arrival), "  # noqa: S608
                f"{self._columns(table)} FROM source_table JOIN shards USING (shard_id) WHERE {begun} AND {within}"
            )
            if self._stores.ended:
                self.connection.execute(
                    "INSERT INTO unapplied SELECT shard_id, sequence_number, sub_sequence_number FROM source_table "  # noqa: S608
                    f"JOIN shards USING (shard_id) WHERE has_ended AND {begun} AND NOT {within}"
                )
            self.connection.unregister("source_table")

    def _register_lineage(self) -> None:
        stores, rows = self._stores, self._stores.states.rows
        cuts = [stores.cuts.get(shard_id) for shard_id in rows]
        shards = pa.table(
            {
                "shard_id": pa.array(list(rows), pa.string()),
                "start_ms": pa.array([_start_ms(row) for row in rows.values()], pa.int64()),
                "cut_number": pa.array([cut and str(cut.sequence_number) for cut in cuts], pa.string()),
                "cut_sub": pa.array([cut and cut.sub_sequence_number for cut in cuts], pa.int64()),
                "has_ended": pa.array([shard_id in stores.ended for shard_id in rows], pa.bool_()),
            }
        )
        self.register("shards", shards)
        pairs = [
            (shard_id, ancestor) for shard_id, found in stores.states.ancestors.items() for ancestor in sorted(found)
        ]
        heirs, ancestors = zip(*pairs, strict=True) if pairs else ((), ())
        self.register(
            "ancestors",
            pa.table({"shard_id": pa.array(heirs, pa.string()), "ancestor": pa.array(ancestors, pa.string())}),
        )

    def _columns(self, table: str) -> str:
        nulls = ", NULL" * len(self.fields)
        if table in _CLASSES:
            return f"'{_CLASSES[table]}', NULL, NULL, NULL, NULL, NULL{nulls}"
        if table == UNARCHIVABLE:
            # A record about a source of ours, whatever is wrong with it, is none of that source's events.
            named = "coalesce(TRY(json_extract_string(decode(payload), '$.type')), '')"
            about = f"starts_with({named}, '{RESERVED_TYPE_PREFIX}') AND starts_with(source, '{SOURCE_PREFIX}')"
            readable = f"(reason NOT IN {_WITHOUT_IDENTITY} AND NOT coalesce({about}, FALSE))"
            return (
                f"'unarchivable', NULL, CASE WHEN {readable} THEN source END, CASE WHEN {readable} THEN identity END, "
                f"NULL, payload{nulls}"
            )
        ours = f"regexp_matches(source, '{_OWN}')"
        expressions = [_expression(self._pipeline.catalogue, table, path) for path in self.fields]
        chosen = "".join(
            f", CAST({text} AS {kind})" for text, kind in zip(expressions, self.fields.values(), strict=True)
        )
        return f"'event', type, source, CASE WHEN {ours} THEN sequence ELSE id END, epoch_ms(time), NULL{chosen}"

    def _order(self) -> None:
        """Each position once, in the order of its shard, and whether it repeats one of its shard or of an ancestor.

        An ancestor was applied to its end before its descendant began, so all of it comes before.
        """
        place = "PARTITION BY shard_id ORDER BY length(number), number, sub"
        once = "SELECT DISTINCT ON (shard_id, number, sub) * FROM archived"
        # A foreign event is a duplicate within the horizon of its last copy, one of ours after any copy. A source of
        # ours with too large a W has no window, and a malformed one no identity: each of their events fails by itself.
        window = f"TRY_CAST(regexp_extract(source_of, ':w([0-9]+)$', 1) AS BIGINT) <= {int(self._pipeline.max_w)}"
        kind = (
            f"CASE WHEN source_of IS NULL OR identity IS NULL THEN 'none' "
            f"WHEN regexp_matches(source_of, '{_OWN}') THEN CASE WHEN {window} THEN 'own' ELSE 'none' END "
            "WHEN starts_with(source_of, 'urn:streamgauge:') THEN 'none' ELSE 'foreign' END"
        )
        self.connection.execute(
            "CREATE TABLE ordered AS WITH inherited AS (SELECT ancestors.shard_id, max(arrival_ms) AS inherited_ms "  # noqa: S608
            "FROM archived JOIN ancestors ON archived.shard_id = ancestor GROUP BY ALL) "
            f"SELECT once.*, row_number() OVER ({place}) AS place, "
            f"greatest(max(arrival_ms) OVER ({place}), inherited_ms) AS running_ms, "
            f"CASE WHEN class IN ('event', 'unarchivable') THEN {kind} ELSE 'none' END AS kind "
            f"FROM ({once}) once LEFT JOIN inherited USING (shard_id)"
        )
        identity = "shard_id, source_of, identity, kind"
        copies = f"PARTITION BY {identity} ORDER BY place"
        self.connection.execute(
            "CREATE TABLE positions AS WITH before AS ("  # noqa: S608
            "SELECT heir.shard_id, heir.source_of, heir.identity, heir.kind, max(earlier.running_ms) AS before_ms "
            "FROM ordered heir JOIN ancestors USING (shard_id) JOIN ordered earlier ON earlier.shard_id = ancestor "
            "AND earlier.source_of = heir.source_of AND earlier.identity = heir.identity AND earlier.kind = heir.kind "
            "WHERE heir.kind <> 'none' GROUP BY ALL) "
            f"SELECT ordered.*, CASE kind WHEN 'own' THEN row_number() OVER ({copies}) > 1 OR before_ms IS NOT NULL "
            f"WHEN 'foreign' THEN coalesce(running_ms - greatest(lag(running_ms) OVER ({copies}), before_ms) "
            f"<= {int(self._pipeline.foreign_horizon_ms)}, false) ELSE false END AS is_duplicate "
            f"FROM ordered LEFT JOIN before USING ({identity})"
        )
        self.connection.execute("DROP TABLE ordered")

    def _accept(self) -> None:
        rows = [(row.shard_id, row.sequence_number, row.sub_sequence_number) for row in self._stores.failed_rows]
        self.register("failed_positions", _position_table(rows))
        self.connection.execute(
            "CREATE TABLE passed AS SELECT * FROM positions WHERE class IN ('event', 'unarchivable') "
            "AND NOT is_duplicate AND (shard_id, number, sub) NOT IN "
            "(SELECT (shard_id, number, sub) FROM failed_positions)"
        )
        self._mend()
        types = ", ".join("?" * len(self._pipeline.event_types))
        self.connection.execute(
            f"CREATE TABLE accepted AS SELECT * FROM passed WHERE event_type IN ({types})",  # noqa: S608
            list(self._pipeline.event_types),
        )

    def _mend(self) -> None:
        """Read what the processor accepted although the archive could not: it reads no more fields than it needs."""
        odd = self.rows("SELECT shard_id, number, sub, payload FROM passed WHERE class = 'unarchivable'")
        if not odd:
            return
        reader = _OddEvents(self._pipeline, list(self.fields))
        columns = ["event_type", "time_ms", *self.fields]
        assignments = ", ".join(f"{field_column(column)} = ?" for column in columns)
        for shard_id, number, sub, payload in odd:
            assert isinstance(payload, bytes) and isinstance(number, str) and isinstance(sub, int)
            values = reader.read(payload, Position(int(number), sub))
            if values is not None:
                self.connection.execute(
                    f"UPDATE passed SET {assignments} WHERE shard_id = ? AND number = ? AND sub = ?",  # noqa: S608
                    [*values, shard_id, number, sub],
                )


class _OddEvents:
    def __init__(self, pipeline: Pipeline, fields: Sequence[str]) -> None:
        self._pipeline = pipeline
        self._fields = fields

    def read(self, payload: bytes, position: Position) -> list[object] | None:
        """Type, time in ms and fields of an event; None for what cannot be read, which the counts then show."""
        pipeline = self._pipeline
        try:
            event = read_record(pipeline.mapping, payload, stream_arn="", position=position)
        except InvalidEvent:
            return None
        values: Mapping[str, object] = {
            "subject": event.subject,
            "partitionkey": event.partition_key,
            "type": event.type,
            "source": event.source,
        }
        data = None
        paths = [path.removeprefix("data.") for path in self._fields if path.startswith("data.")]
        if event.type in pipeline.event_types and paths:
            known = [path for path in paths if path in pipeline.catalogue.fields(event.type)]
            try:
                version = pipeline.catalogue.version_of(event.dataschema, event.type)
                data = msgspec.json.decode(
                    event.data, type=data_struct(pipeline.catalogue, event.type, known, version=version)
                )
            except (UnknownVersion, msgspec.DecodeError, UnicodeDecodeError):
                return None
        found = [
            values[path] if path in values else data and field_getter(path.removeprefix("data."))(data)
            for path in self._fields
        ]
        return [event.type, instant_ms(event.time), *found]


def _named_fields(pipeline: Pipeline) -> dict[str, str]:
    """The fields that keys and ``where`` name, and their SQL types."""
    names: dict[str, None] = {}
    for aggregate in pipeline.aggregates:
        names |= dict.fromkeys(aggregate.key)
        names |= dict.fromkeys(aggregate.where.names if aggregate.where else ())
    return {name: _sql_type(pipeline, name) for name in names}


def _sql_type(pipeline: Pipeline, name: str) -> str:
    if name in _ENVELOPE:
        return "VARCHAR"
    path = name.removeprefix("data.")
    kinds = {
        pipeline.catalogue.fields(event_type)[path].kind
        for event_type in pipeline.event_types
        if path in pipeline.catalogue.fields(event_type)
    }
    return _SQL_TYPES["number" if kinds == {"integer", "number"} else kinds.pop()]


def _expression(catalogue: Catalogue, event_type: str, name: str) -> str:
    """How a field is read from an event's table; the partition key is the one that the event claims."""
    if name == "partitionkey":
        return "coalesce(partitionkey, subject)"
    if name in _ENVELOPE:
        return name
    path = name.removeprefix("data.")
    if path not in catalogue.fields(event_type):
        return "NULL"
    return ".".join(["data", *(field_column(part) for part in path.split("."))])


def _start_ms(row: ShardRow) -> int:
    """From which arrival on the pipeline reads the shard."""
    kind, _, text = row.start.partition(" ")
    return instant_ms(text) if kind == "AT_TIMESTAMP" else 0


def _position_table(rows: Sequence[tuple[str, str, int]]) -> pa.Table:
    shards, numbers, subs = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "shard_id": pa.array(shards, pa.string()),
            "number": pa.array(numbers, pa.string()),
            "sub": pa.array(subs, pa.int64()),
        }
    )
