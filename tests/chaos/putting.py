"""A producer that may be killed at any moment: ``python putting.py SEED FIRST COUNT RATE STREAM JOURNAL``.

Before an event is put, ``P <n>`` goes into the journal; ``A <n>`` once it is acknowledged, ``U <n>`` if its outcome is
unknown or it was given up. What is written there outlives a kill -9. When all is acknowledged it prints ``put``, waits
for a line, and states the end of the input.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from streamgauge.events.control import EndOfInput
from streamgauge.infra.clients import Clients
from streamgauge.producers.client.delivery import Acknowledged, Delivery
from streamgauge.producers.client.ports import KinesisClient, StreamUnavailable
from streamgauge.producers.client.producer import KinesisProducer
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.settings import Endpoints

sys.path.append(str(Path(__file__).parents[1]))
from chaos.load import reading


def main(arguments: Sequence[str]) -> None:
    seed, first, count = map(int, arguments[:3])
    rate, stream, journal = float(arguments[3]), arguments[4], Path(arguments[5])
    client = Clients(Endpoints.from_environment(os.environ), region=os.environ["AWS_REGION"], attempts=1).kinesis
    producer = begun(client, stream)
    lock = threading.Lock()
    with journal.open("a", buffering=1) as lines:

        def note(n: int, delivery: Delivery) -> None:
            with lock:
                lines.write(f"{'A' if isinstance(delivery.outcome, Acknowledged) else 'U'} {n}\n")

        started = monotonic()
        for n in range(first, first + count):
            sleep(max(0.0, started + (n - first) / rate - monotonic()))
            event = reading(seed, n)
            with lock:
                lines.write(f"P {n}\n")
            data = f'{{"n":{n},"value":{event.value}}}'.encode()
            producer.put("reading", event.key, event.time_ms, data, on_done=partial(note, n))
        producer.flush()
        sys.stdout.write("put\n")
        sys.stdout.flush()
        sys.stdin.readline()
        producer.close(end_of_input=EndOfInput(input=producer.source, part=0, parts=1))


def begun(client: KinesisClient, stream: str) -> KinesisProducer:
    """A producer, which is told at once if the stream cannot be listed: here that passes."""
    for _ in range(10):
        try:
            return KinesisProducer(client, stream=stream, settings=ProducerSettings(ledger_interval_ms=1_000))
        except StreamUnavailable:
            sleep(0.1)
    raise AssertionError("the stream cannot be listed")


if __name__ == "__main__":
    main(sys.argv[1:])
