"""The responder as a Lambda function, a target of the bus.

Environment: ``STREAMGAUGE_ALERTS_TABLE``, ``STREAMGAUGE_IDEMPOTENCY_TABLE``, and ``STREAMGAUGE_ACTION``, the action as
``module:function``; without it, an event is logged and counted, and the table of alerts says what is raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib import import_module

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer
from aws_lambda_powertools.utilities.typing import LambdaContext

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.responders.alerts import Alerts
from streamgauge.processors.responders.events import ThresholdNotice, parse_notice
from streamgauge.processors.responders.responder import Action, Responder

__all__ = ["handler", "load_action"]

_ALERTS = "STREAMGAUGE_ALERTS_TABLE"
_IDEMPOTENCY = "STREAMGAUGE_IDEMPOTENCY_TABLE"
_ACTION = "STREAMGAUGE_ACTION"

logger = Logger(service="responder")
metrics = Metrics(namespace="streamgauge", service="responder")


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, object], context: LambdaContext) -> dict[str, str]:
    """Act on the threshold event of one delivery; an error sends it to be tried again, and then to the dead letters."""
    try:
        notice = parse_notice(event)
        detail = notice.detail
        logger.append_keys(
            event_id=detail.id, rule=detail.rule, pipeline=detail.pipeline, traceparent=detail.traceparent
        )
        standing = _responder().respond(notice, context)
    except StreamgaugeError as error:
        logger.error(str(error))  # noqa: TRY400 - it says what to do; a stack trace would bury that
        metrics.add_metric(name="ResponderErrors", unit=MetricUnit.Count, value=1)
        raise
    logger.info("threshold event", extra={"standing": standing.value, "state": notice.detail.state})
    metrics.add_metric(name=f"ThresholdEvents{standing.value.title()}", unit=MetricUnit.Count, value=1)
    return {"id": notice.detail.id, "standing": standing.value}


@cache
def _responder() -> Responder:
    return responder_from(os.environ)


def responder_from(environment: Mapping[str, str]) -> Responder:
    """The responder that the environment describes.

    Raises
    ------
    StreamgaugeError
        A variable is missing, or names no action.
    """
    missing = [name for name in (_ALERTS, _IDEMPOTENCY) if not environment.get(name)]
    if missing:
        raise StreamgaugeError(
            f"not set: {', '.join(missing)}",
            where="environment",
            remedy="Deploy this version's infra/template.yaml, which sets them",
        )
    dynamodb = boto3.client("dynamodb")
    persistence = DynamoDBPersistenceLayer(environment[_IDEMPOTENCY], boto3_client=dynamodb)
    return Responder(Alerts(dynamodb, environment[_ALERTS]), persistence, load_action(environment.get(_ACTION, "")))


def load_action(name: str) -> Action:
    """The function that ``module:function`` names; one that does nothing further for an empty name.

    Raises
    ------
    StreamgaugeError
        There is no such function.
    """
    if not name:
        return _nothing_further
    module, _, function = name.partition(":")
    remedy = f"Set {_ACTION} to module:function, a function of one ThresholdNotice, packaged beside streamgauge"
    try:
        action = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise StreamgaugeError(f"{name!r}: {error}", where=_ACTION, remedy=remedy) from error
    if not callable(action):
        raise StreamgaugeError(f"{name!r} is no function", where=_ACTION, remedy=remedy)

    def act(notice: ThresholdNotice) -> None:
        action(notice)

    return act


def _nothing_further(notice: ThresholdNotice) -> None:
    """The log line, the metric and the table of alerts are all."""
