"""Acts on threshold events, each at most once, and on none that a later one has overtaken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from aws_lambda_powertools.utilities.idempotency import (
    BasePersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

from streamgauge.processors.responders.alerts import Alerts, Standing
from streamgauge.processors.responders.events import ThresholdNotice

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

__all__ = ["Action", "Responder"]

# EventBridge delivers for a day at most, and Lambda's queue for asynchronous calls holds an event for six hours; what
# a redrive brings later than that, the table of alerts knows.
_REMEMBERED_S = 2 * 86_400


class Action(Protocol):
    """What is done about a threshold event that holds now. An exception has it called again with the same event."""

    def __call__(self, notice: ThresholdNotice) -> None: ...  # noqa: D102


class Responder:
    """Calls an action for each threshold event once, if it is the newest of its rule and key.

    The id of the threshold event, not that of EventBridge's envelope, is what tells repetitions: Powertools'
    idempotency keeps two deliveries at a time apart, and `Alerts` knows what was done however long ago.

    Parameters
    ----------
    persistence
        Where Powertools keeps who is at work on what.
    action
        What is to be done.
    """

    def __init__(self, alerts: Alerts, persistence: BasePersistenceLayer, action: Action) -> None:
        self._alerts = alerts
        self._action = action
        self._config = IdempotencyConfig(
            event_key_jmespath="id", raise_on_no_idempotency_key=True, expires_after_seconds=_REMEMBERED_S
        )
        self._once: Callable[..., str] = idempotent_function(
            self._respond,
            data_keyword_argument="identity",
            persistence_store=persistence,
            config=self._config,
            key_prefix="responder",
        )

    def respond(self, notice: ThresholdNotice, context: LambdaContext) -> Standing:
        """Act, or not.

        Parameters
        ----------
        context
            Lambda's, from which Powertools learns when an invocation that has vanished cannot come back.

        Returns
        -------
        How the event stood: acted on only if it was `Standing.NEWEST`.

        Raises
        ------
        StoreUnavailable, StoreRefused
            The table of alerts does not answer, or refuses.
        IdempotencyAlreadyInProgressError
            Another delivery of the event is being acted on; come back later.
        Exception
            Whatever the action raises. Nothing is remembered then.
        """
        self._config.register_lambda_context(context)
        worked: list[Standing] = []
        self._once(identity={"id": notice.detail.id}, notice=notice, worked=worked)
        return worked[0] if worked else Standing.REPEATED

    def _respond(self, *, identity: dict[str, str], notice: ThresholdNotice, worked: list[Standing]) -> str:  # noqa: ARG002 - Powertools reads it
        standing = self._alerts.note(notice.detail)
        if standing is Standing.NEWEST:
            self._action(notice)
            self._alerts.acted(notice.detail)
        worked.append(standing)
        return standing.value
