"""The responder: what is repeated or late acts once, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import msgspec
import pytest
from aws_in_process import InProcessAws, aws_in_process
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyAlreadyInProgressError
from aws_lambda_powertools.utilities.typing import LambdaContext

from streamgauge.events.errors import StreamgaugeError
from streamgauge.processors.commit.commit_objects import rule_sequence_text
from streamgauge.processors.commit.ports import StoreRefused
from streamgauge.processors.commit.threshold_detail import ThresholdDetail
from streamgauge.processors.responders.alerts import Alerts, Standing
from streamgauge.processors.responders.events import MalformedThresholdEvent, ThresholdNotice, parse_notice
from streamgauge.processors.responders.handler import load_action, responder_from
from streamgauge.processors.responders.responder import Responder


def event(number: int, *, state: str = "raised", key: str = "EWR", oversize: bool = False) -> dict[str, object]:
    detail = ThresholdDetail(
        id=f"id-{number}",
        pipeline="weather",
        state_epoch=1,
        rule="gale",
        aggregate="daily_wind",
        key={} if oversize else {"subject": key},
        window_start="2013-01-01T00:00:00Z",
        window_end="2013-01-02T00:00:00Z",
        revision=1,
        kind="raise" if state == "raised" else "clear",
        state=state,
        reason="crossed",
        takes_back=None,
        crossing_ordinal=0,
        rule_sequence=rule_sequence_text((number, 0, 0)),
        measures={"gust_max": 41.5},
        raise_when="gust_max > 40",
        clear_when=None,
        oversize=oversize,
    )
    return {
        "id": f"delivery-of-{number}",
        "source": "streamgauge.weather",
        "time": "2013-01-02T00:00:01Z",
        "detail-type": "Gale",
        "detail": msgspec.to_builtins(detail),
    }


class Context(LambdaContext):
    def get_remaining_time_in_millis(self) -> int:
        return 30_000


CONTEXT = Context()


class Acts:
    """Remembers what was acted on; the first `failures` calls fail."""

    def __init__(self, failures: int = 0) -> None:
        self.ids: list[str] = []
        self.failures = failures

    def __call__(self, notice: ThresholdNotice) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the action fails")
        self.ids.append(notice.detail.id)


@pytest.fixture(scope="module")
def aws() -> Iterator[InProcessAws]:
    with aws_in_process() as aws:
        yield aws


@pytest.fixture
def tables(aws: InProcessAws) -> Iterator[None]:
    for name, keys in (("alerts", ("rule", "alert_key")), ("idempotency", ("id",))):
        aws.dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            KeySchema=[
                {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
        )
    yield
    for name in ("alerts", "idempotency"):
        aws.dynamodb.delete_table(TableName=name)


def responder(aws: InProcessAws, acts: Acts) -> Responder:
    persistence = DynamoDBPersistenceLayer("idempotency", boto3_client=aws.dynamodb)
    return Responder(Alerts(aws.dynamodb, "alerts"), persistence, acts)


def forget_idempotency(aws: InProcessAws) -> None:
    """As when its items have expired."""
    for item in aws.dynamodb.scan(TableName="idempotency")["Items"]:
        aws.dynamodb.delete_item(TableName="idempotency", Key={"id": item["id"]})


def alert_state(aws: InProcessAws) -> list[str]:
    return [item["alert_state"]["S"] for item in aws.dynamodb.scan(TableName="alerts")["Items"]]


@pytest.mark.usefixtures("tables")
def test_an_event_that_is_delivered_twice_acts_once(aws: InProcessAws) -> None:
    acts = Acts()
    one = responder(aws, acts)
    assert one.respond(parse_notice(event(7)), CONTEXT) is Standing.NEWEST
    assert one.respond(parse_notice(event(7)), CONTEXT) is Standing.REPEATED
    assert acts.ids == ["id-7"]


@pytest.mark.usefixtures("tables")
def test_an_event_that_is_delivered_again_by_a_redrive_long_after_does_not_act(aws: InProcessAws) -> None:
    acts = Acts()
    responder(aws, acts).respond(parse_notice(event(7)), CONTEXT)
    forget_idempotency(aws)
    assert responder(aws, acts).respond(parse_notice(event(7)), CONTEXT) is Standing.REPEATED
    assert acts.ids == ["id-7"]


@pytest.mark.usefixtures("tables")
def test_an_event_that_a_later_one_has_overtaken_does_not_act(aws: InProcessAws) -> None:
    acts = Acts()
    one = responder(aws, acts)
    assert one.respond(parse_notice(event(9, state="cleared")), CONTEXT) is Standing.NEWEST
    assert one.respond(parse_notice(event(8)), CONTEXT) is Standing.LATE
    assert acts.ids == ["id-9"]
    assert alert_state(aws) == ["cleared"]


@pytest.mark.usefixtures("tables")
def test_events_of_another_key_are_compared_with_their_own_kind(aws: InProcessAws) -> None:
    acts = Acts()
    one = responder(aws, acts)
    one.respond(parse_notice(event(9, key="EWR")), CONTEXT)
    assert one.respond(parse_notice(event(8, key="JFK")), CONTEXT) is Standing.NEWEST
    assert acts.ids == ["id-9", "id-8"]


@pytest.mark.usefixtures("tables")
def test_an_event_too_large_to_bear_its_key_is_compared_with_itself_alone(aws: InProcessAws) -> None:
    acts = Acts()
    one = responder(aws, acts)
    one.respond(parse_notice(event(9, oversize=True)), CONTEXT)
    assert one.respond(parse_notice(event(8, oversize=True)), CONTEXT) is Standing.NEWEST
    assert one.respond(parse_notice(event(8, oversize=True)), CONTEXT) is Standing.REPEATED
    assert acts.ids == ["id-9", "id-8"]


@pytest.mark.usefixtures("tables")
def test_an_action_that_failed_is_tried_again_with_the_same_event(aws: InProcessAws) -> None:
    acts = Acts(failures=2)
    one = responder(aws, acts)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the action fails"):
            one.respond(parse_notice(event(7)), CONTEXT)
    assert one.respond(parse_notice(event(7)), CONTEXT) is Standing.NEWEST
    assert one.respond(parse_notice(event(7)), CONTEXT) is Standing.REPEATED
    assert acts.ids == ["id-7"]


@pytest.mark.usefixtures("tables")
def test_two_deliveries_at_a_time_act_once(aws: InProcessAws) -> None:
    refused: list[Exception] = []
    ids: list[str] = []

    def deliver() -> None:
        try:
            responder(aws, second).respond(parse_notice(event(7)), CONTEXT)
        except IdempotencyAlreadyInProgressError as error:
            refused.append(error)

    second = Acts()

    def act(notice: ThresholdNotice) -> None:
        other = Thread(target=deliver)
        other.start()
        other.join()
        ids.append(notice.detail.id)

    persistence = DynamoDBPersistenceLayer("idempotency", boto3_client=aws.dynamodb)
    Responder(Alerts(aws.dynamodb, "alerts"), persistence, act).respond(parse_notice(event(7)), CONTEXT)
    assert ids == ["id-7"]
    assert second.ids == []
    assert len(refused) == 1


@pytest.mark.usefixtures("aws")
def test_a_table_that_is_gone_is_one_clear_error(aws: InProcessAws) -> None:
    with pytest.raises(StoreRefused, match="ResourceNotFoundException"):
        Alerts(aws.dynamodb, "gone").note(parse_notice(event(7)).detail)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "aws.s3"}, "its source is 'aws.s3'"),
        ({"detail": {"id": "1"}}, "missing required field"),
        ({"detail": "text"}, "Expected `object`, got `str` - at `$.detail`"),
        ({"id": 3}, "Expected `str`, got `int` - at `$.id`"),
    ],
)
def test_what_is_no_threshold_event_is_refused_with_the_reason(change: dict[str, object], said: str) -> None:
    with pytest.raises(MalformedThresholdEvent) as caught:
        parse_notice(event(7) | change)
    assert said in str(caught.value)
    assert "streamgauge." in str(caught.value)


def test_an_event_with_a_state_of_nobodys_is_refused() -> None:
    wrong = event(7)
    assert isinstance(wrong["detail"], dict)
    wrong["detail"]["state"] = "open"
    with pytest.raises(MalformedThresholdEvent, match=r"detail\.state is 'open', not one of raised, cleared"):
        parse_notice(wrong)


def test_something_that_is_no_object_is_refused() -> None:
    with pytest.raises(MalformedThresholdEvent, match="Expected `object`, got `array`"):
        parse_notice([1, 2])


def test_missing_variables_are_all_named() -> None:
    with pytest.raises(StreamgaugeError, match="STREAMGAUGE_ALERTS_TABLE, STREAMGAUGE_IDEMPOTENCY_TABLE"):
        responder_from({})


@pytest.mark.parametrize("name", ["nowhere:act", "json:act", "json:decoder", "json"])
def test_an_action_that_is_not_there_is_one_clear_error(name: str) -> None:
    with pytest.raises(StreamgaugeError, match="STREAMGAUGE_ACTION") as caught:
        load_action(name)
    assert repr(name) in str(caught.value)
