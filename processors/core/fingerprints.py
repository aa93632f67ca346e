"""Whether a saved state fits a pipeline that may have been edited since.

Panes and rules of one (pipeline, state_epoch) must mean one thing from the first event to the last. So what they
depend on is saved with them, and a pipeline that defines it otherwise is refused. What they do not depend on may
change: the out-of-orderness bound, `serve`, `detail_type`, event types, aggregates and thresholds that are added.
"""

from __future__ import annotations

import msgspec

from streamgauge.processors.core.columns import texts
from streamgauge.processors.core.container import Columns, SnapshotError
from streamgauge.processors.core.definition import Absence, Aggregate, Pipeline, Threshold

__all__ = ["check_definitions", "definition_columns"]

_Definition = dict[str, str]


def _aggregate(aggregate: Aggregate) -> _Definition:
    return {
        "name": aggregate.name,
        "key": ", ".join(aggregate.key),
        "window": str(aggregate.window),
        "allowed_lateness": f"{aggregate.allowed_lateness_ms} ms",
        "where": "none" if aggregate.where is None else aggregate.where.text,
        "measures": ", ".join(
            sorted(
                f"{measure.name} = {measure.call}" + (" of integers" if measure.is_integer else "")
                for measure in aggregate.measures
            )
        ),
    }


def _threshold(threshold: Threshold) -> _Definition:
    return {
        "name": threshold.name,
        "aggregate": threshold.aggregate,
        "raise_when": threshold.raise_when.text,
        "clear_when": "none" if threshold.clear_when is None else threshold.clear_when.text,
        **({"early": "true"} if threshold.early else {}),
    }


def _absence(absence: Absence) -> _Definition:
    return {
        "name": absence.name,
        "aggregate": absence.aggregate,
        "absent_for": f"{absence.absent_for_ms} ms",
    }


def _definitions(pipeline: Pipeline) -> dict[str, list[_Definition]]:
    return {
        "aggregate": [_aggregate(aggregate) for aggregate in pipeline.aggregates],
        "threshold": [
            *(_threshold(threshold) for threshold in pipeline.thresholds),
            *(_absence(absence) for absence in pipeline.absences),
        ],
    }


def definition_columns(pipeline: Pipeline) -> Columns:
    """What a snapshot must hold of the pipeline that made it."""
    return {
        "pipeline": [pipeline.name, str(pipeline.state_epoch)],
        **{
            f"definition.{kind}": [msgspec.json.encode(definition).decode() for definition in definitions]
            for kind, definitions in _definitions(pipeline).items()
        },
    }


def check_definitions(pipeline: Pipeline, columns: Columns) -> None:
    """Refuse a pipeline that the saved state does not fit.

    Raises
    ------
    SnapshotError
        It names what was changed, what it was and what it is.
    """
    name, epoch = texts(columns, "pipeline")
    if (name, epoch) != (pipeline.name, str(pipeline.state_epoch)):
        raise SnapshotError(
            f"the saved state belongs to pipeline {name!r}, state_epoch {epoch}, "
            f"not to {pipeline.name!r}, state_epoch {pipeline.state_epoch}",
            where="snapshot",
        )
    for kind, definitions in _definitions(pipeline).items():
        current = {definition["name"]: definition for definition in definitions}
        for text in texts(columns, f"definition.{kind}"):
            saved = msgspec.json.decode(text, type=_Definition)
            _check(kind, saved, current.get(saved["name"]), pipeline)


def _check(kind: str, saved: _Definition, current: _Definition | None, pipeline: Pipeline) -> None:
    if current == saved:
        return
    if current is None:
        change = "it was removed"
    else:
        changes = [
            f"{part} was {saved.get(part, 'none')}, is now {current.get(part, 'none')}"
            for part in {**saved, **current}
            if saved.get(part) != current.get(part)
        ]
        change = "; ".join(changes)
    raise SnapshotError(
        f"the saved state was made by another definition: {change}",
        where=f"pipeline {pipeline.name!r}, {kind} {saved['name']!r}",
        remedy=f"Raise state_epoch to {pipeline.state_epoch + 1} to begin anew, or undo the change",
    )
