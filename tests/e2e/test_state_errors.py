"""What a user reads when the saved state is unreadable, is another pipeline's, or its store does not answer."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import numpy as np
import pytest
from cli_runner import DATA, Cli, Finished

from streamgauge.infra.local.faulty_proxy import FaultyProxy, Treatment
from streamgauge.infra.local.stack import load_stack
from streamgauge.processors.core.container import VERSION, decode_columns, encode_columns

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

SHARD = "shardId-000000000000"
RESULTS = ("results", "overview")
TO_THE_END = ("process", "--until-end-of-input", "--json")


@dataclass(frozen=True)
class Place:
    """A stack whose only shard has a saved state."""

    cli: Cli
    dynamodb: DynamoDBClient
    url: str
    table: str

    @property
    def pipeline(self) -> Path:
        return self.cli.folder / "mine" / "pipeline.toml"

    def row(self) -> dict[str, AttributeValueTypeDef]:
        (row,) = (
            item
            for item in self.dynamodb.scan(TableName=self.table, ConsistentRead=True)["Items"]
            if item["pipeline"] == {"S": "mine#1"}
        )
        return row

    def put(self, row: dict[str, AttributeValueTypeDef]) -> None:
        self.dynamodb.put_item(TableName=self.table, Item=row)


@pytest.fixture(scope="module")
def processed(module_cli: Cli) -> Place:
    cli = module_cli
    cli.ok("init", "mine", "--sample", str(DATA / "weather-sample.csv"))
    cli.ok("up", "--detach", "--host", "local", "--pipeline", "mine/pipeline.toml")
    cli.ok("produce", "--count", "300", "--end-of-input")
    cli.ok(*TO_THE_END)
    info = load_stack(cli.folder)
    client = boto3.client(
        "dynamodb",
        endpoint_url=info.aws_url,
        region_name=info.region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    return Place(cli, client, info.aws_url, info.outputs["StateTableName"])


@pytest.fixture
def place(processed: Place) -> Iterator[Place]:
    """With its state and its pipeline file as they were, once the test is over."""
    row, text = processed.row(), processed.pipeline.read_text()
    yield processed
    processed.put(row)
    processed.pipeline.write_text(text)


def refused(done: Finished) -> str:
    """The one message of a command that failed."""
    assert done.status == 1
    assert not done.out
    (line,) = (line for line in done.err.splitlines() if line.startswith("error: "))
    return line


def altered(row: dict[str, AttributeValueTypeDef], change: Callable[[bytes], bytes]) -> None:
    """Change the snapshot, as a release that wrote it so would have: the row has its hash."""
    body = change(row["snapshot"]["B"])
    row["snapshot"], row["snapshot_sha256"] = {"B": body}, {"S": sha256(body).hexdigest()}


def of_later_container(row: dict[str, AttributeValueTypeDef]) -> None:
    altered(row, lambda body: body[:8] + (VERSION + 1).to_bytes(2, "little") + body[10:])


def of_later_format(row: dict[str, AttributeValueTypeDef]) -> None:
    altered(row, lambda body: encode_columns({**decode_columns(body), "engine.state_format": np.array([99])}))


def damaged(row: dict[str, AttributeValueTypeDef]) -> None:
    body = row["snapshot"]["B"]
    row["snapshot"] = {"B": body[:-1] + bytes([body[-1] ^ 1])}


def damaged_before_it_was_hashed(row: dict[str, AttributeValueTypeDef]) -> None:
    altered(row, lambda body: body[:-1] + bytes([body[-1] ^ 1]))


def gone(row: dict[str, AttributeValueTypeDef]) -> None:
    del row["snapshot"]
    row["snapshot_object"] = {"S": f"mine/1/{SHARD}/00000000000000000009-x.snapshot"}


@pytest.mark.parametrize(
    ("command", "change", "said", "remedy"),
    [
        (
            TO_THE_END,
            of_later_container,
            "container version 2; this release reads version 1",
            "Run the release that wrote it",
        ),
        (RESULTS, of_later_format, "the state has format 99; this release reads", "Run the release that wrote it"),
        (TO_THE_END, damaged, "does not have the hash that the shard's row states", "raise state_epoch"),
        (RESULTS, damaged_before_it_was_hashed, "corrupted: its bytes do not have the hash", "raise state_epoch"),
        (TO_THE_END, gone, "00000000000000000009-x.snapshot is missing", "state_epoch"),
    ],
)
def test_a_state_that_cannot_be_read_is_named_and_left_as_it_is(
    place: Place,
    command: tuple[str, ...],
    change: Callable[[dict[str, AttributeValueTypeDef]], None],
    said: str,
    remedy: str,
) -> None:
    row = place.row()
    change(row)
    place.put(row)
    message = refused(place.cli(*command))
    assert SHARD in message
    assert said in message
    assert remedy in message
    found = place.row()
    for name in ("snapshot", "snapshot_object", "snapshot_sha256", "position"):
        assert found.get(name) == row.get(name)


def test_a_changed_aggregate_demands_a_new_epoch_and_an_added_one_keeps_the_state(place: Place) -> None:
    text = place.pipeline.read_text()
    place.pipeline.write_text(text.replace('tumbling = "1d"', 'tumbling = "12h"'))
    for command in (TO_THE_END, ("audit",)):
        message = refused(place.cli(*command))
        assert "aggregate 'overview'" in message
        assert "window was tumbling" in message
        assert "Raise state_epoch to 2" in message
    before = place.cli.ok("produce", "--count", "50", "--end-of-input", "--json").json
    assert isinstance(before, dict)
    added = '\n[[aggregate]]\nname = "more"\nkey = ["subject"]\nwindow = { tumbling = "1h" }\n'
    place.pipeline.write_text(text + added + 'measures = { n = "count()" }\n')
    place.cli.ok(*TO_THE_END)
    assert place.cli.ok("audit", "--json").json["audit"] == "pass"  # type: ignore[index,call-overload]
    # The new epoch begins from nothing: it reads everything again.
    place.pipeline.write_text(
        re.sub("state_epoch = 1", "state_epoch = 2", text).replace('tumbling = "1d"', 'tumbling = "12h"')
    )
    summary = place.cli.ok(*TO_THE_END).json
    assert isinstance(summary, dict)
    assert summary["events"] > 350


def test_a_state_store_that_answers_slowly_is_waited_for(place: Place) -> None:
    with FaultyProxy(place.url, lambda operation: Treatment(delay_s=0.4)) as slow:
        done = place.cli.ok(*TO_THE_END, AWS_ENDPOINT_URL_DYNAMODB=slow.url)
        assert slow.passed
    summary = done.json
    assert isinstance(summary, dict)
    assert [shard["input_ended"] for shard in summary["shards"]] == [True]


def test_a_state_store_that_is_not_there_is_named(place: Place) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    message = refused(place.cli(*TO_THE_END, AWS_ENDPOINT_URL_DYNAMODB=url))
    assert place.table in message
    assert f'Could not connect to the endpoint URL: "{url}/"' in message


def test_a_state_store_that_never_answers_is_named_in_less_than_a_minute(place: Place) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        message = refused(place.cli(*TO_THE_END, timeout_s=60, AWS_ENDPOINT_URL_DYNAMODB=url))
    assert place.table in message
    assert f'Read timeout on endpoint URL: "{url}/"' in message
