"""Puts events with our producer: ``python putting.py FIRST COUNT STREAM [end]``. Every fiftieth is sent twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from streamgauge.events.control import EndOfInput
from streamgauge.infra.clients import Clients
from streamgauge.producers.client.producer import KinesisProducer
from streamgauge.producers.client.settings import ProducerSettings
from streamgauge.settings import Endpoints

sys.path.append(str(Path(__file__).parents[1]))
from kcl.load import payload, subject, time_ms


def main(arguments: Sequence[str]) -> None:
    first, count, stream = int(arguments[0]), int(arguments[1]), arguments[2]
    clients = Clients(Endpoints.from_environment(os.environ), region=os.environ["AWS_REGION"], attempts=1)
    producer = KinesisProducer(clients.kinesis, stream=stream, settings=ProducerSettings())
    for n in range(first, first + count):
        producer.put("reading", subject(n), time_ms(n), payload(n), copies=1 + (n % 50 == 0))
    end = EndOfInput(input=producer.source, part=0, parts=1) if arguments[3:] == ["end"] else None
    stats = producer.close(end_of_input=end)
    assert (stats.given_up, stats.unknown) == (0, 0), stats


if __name__ == "__main__":
    main(sys.argv[1:])
