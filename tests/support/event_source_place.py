"""MiniStack, our Kinesis, and functions that write down what they are invoked with and do what records tell them."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from ministack_server import ministack_server

from streamgauge.infra.clients import Clients
from streamgauge.infra.local.event_source import RunSettings, run_event_sources
from streamgauge.infra.local.event_source.actions import Counters, Patience
from streamgauge.infra.local.kinesis.server import LocalKinesis
from streamgauge.settings import Endpoints

ROLE = "arn:aws:iam::000000000000:role/processor"
TIMEOUT_S = 2
DEADLINE_S = 60.0
# Writes down what it is given. The first word of a record's data says what to do; with "once" it does so a single time.
HANDLER = """
import base64, json, os, signal, time
from pathlib import Path

def handler(event, context):
    records = [one["kinesis"] | {"id": one["eventID"]} for one in event.get("Records", [])]
    texts = [base64.b64decode(one["data"]).decode() for one in records]
    seen = {"texts": texts, "pid": os.getpid(), "ids": [one["id"] for one in records], "began": time.time()}
    if not records:
        seen["event"] = event
    for record, text in zip(records, texts):
        word, _, rest = text.partition(" ")
        marker = Path(os.environ["CALLS"] + "." + record["sequenceNumber"])
        if word in {"slow", "raise", "die", "hang", "large", "partial"} and not (rest == "once" and marker.exists()):
            marker.touch()
            if word == "slow":
                time.sleep(1)
                continue
            write(seen)
            if word == "raise":
                raise ValueError("as told")
            if word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if word == "hang":
                time.sleep(60)
            if word == "large":
                return "x" * 7_000_000
            return {"batchItemFailures": [{"itemIdentifier": record["sequenceNumber"]}]}
    write({**seen, "ended": time.time()})

def write(seen):
    with open(os.environ["CALLS"], "a") as file:
        file.write(json.dumps(seen) + "\\n")
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = monotonic() + DEADLINE_S
    while not condition():
        assert monotonic() < deadline, what
        sleep(0.02)


@dataclass
class Source:
    """A stream, a function with a mapping of it, and what the function has seen."""

    clients: Clients
    name: str
    calls_file: Path
    uuid: str = ""
    arn: str = ""
    put_count: int = field(default=0)

    @property
    def calls(self) -> list[dict[str, list[str]]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    @property
    def texts(self) -> list[list[str]]:
        return [call["texts"] for call in self.calls]

    def put(self, *texts: str, key: str = "key") -> None:
        for text in texts:
            self.clients.kinesis.put_record(StreamName=self.name, Data=text.encode(), PartitionKey=key)

    def wait_for(self, calls: Sequence[Sequence[str]]) -> None:
        wait_until(lambda: self.texts == list(calls), f"{calls} were to be seen")

    def wait_for_last(self, text: str) -> None:
        wait_until(lambda: bool(self.texts) and text in self.texts[-1], f"{text} was to be seen")


@dataclass
class Place:
    """MiniStack and our Kinesis."""

    endpoints: Endpoints
    clients: Clients
    folder: Path

    def stream(self, name: str, shards: int = 1) -> str:
        kinesis = self.clients.kinesis
        kinesis.create_stream(StreamName=name, ShardCount=shards)
        wait_until(lambda: self.is_active(name), "the stream was to be active")
        return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]

    def remove_mappings(self) -> None:
        for mapping in self.clients.functions.list_event_source_mappings()["EventSourceMappings"]:
            self.clients.functions.delete_event_source_mapping(UUID=mapping["UUID"])

    def is_active(self, name: str) -> bool:
        summary = self.clients.kinesis.describe_stream_summary(StreamName=name)
        return summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"

    def source(self, name: str, *, texts: Sequence[str] = (), shards: int = 1, **properties: object) -> Source:
        """`texts` are in the stream before the mapping is there, so that they make one batch."""
        source = Source(self.clients, name, self.folder / name, arn=self.stream(name, shards))
        source.calls_file.touch()
        source.put(*texts)
        self.function(name, source.calls_file)
        described = self.clients.functions.create_event_source_mapping(
            FunctionName=name,
            EventSourceArn=source.arn,
            **{"StartingPosition": "TRIM_HORIZON", "BatchSize": 100, **properties},
        )
        source.uuid = described["UUID"]
        return source

    def function(self, name: str, calls_file: Path) -> str:
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("module.py", HANDLER)
        return self.clients.functions.create_function(
            FunctionName=name,
            Runtime="python3.11",
            Role=ROLE,
            Handler="module.handler",
            Timeout=TIMEOUT_S,
            Code={"ZipFile": code.getvalue()},
            Environment={"Variables": {"CALLS": str(calls_file)}},
        )["FunctionArn"]


@contextmanager
def a_place(folder: Path) -> Iterator[Place]:
    """Both servers, and no poller."""
    with ministack_server(folder) as clients, LocalKinesis() as kinesis:
        endpoints = Endpoints(aws=clients.endpoints.aws, kinesis=kinesis.endpoint_url)
        yield Place(endpoints, Clients(endpoints, region=clients.region), folder)


QUICK = RunSettings(
    patience=Patience(list_interval_ms=300, backoff_ms_first=50, backoff_ms_max=400), refresh_s=0.1, has_schedules=False
)


@contextmanager
def running(endpoints: Endpoints, settings: RunSettings = QUICK) -> Iterator[list[Counters]]:
    """The poller in a thread; its counters are in the list once it has ended."""
    ending = threading.Event()
    counters: list[Counters] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            counters.append(run_event_sources(endpoints, region="us-east-1", stop=ending, settings=settings))
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield counters
    finally:
        ending.set()
        thread.join(30)
    assert not thread.is_alive()
    if errors:
        raise errors[0]
