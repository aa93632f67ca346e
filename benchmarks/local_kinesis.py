"""Cost per put and per read of the local Kinesis as a shard grows to 1,000,000 records, and its rate over HTTP.

    python benchmarks/local_kinesis.py [--records 1000000]

The first part calls the model in this process, limits off, one shard: a window of puts and one of reads (10 records a
call, spread over the whole shard) at every tenth of the way, in CPU time. The second part puts calls of 10 KB, 1 KB and
200-byte records through a server in a process of its own, with a bare HTTP client and bodies made beforehand, so that
the server is what is measured; then it reads everything back.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import random
import subprocess
import sys
import time

from streamgauge.infra.local.kinesis.limits import Limits
from streamgauge.infra.local.kinesis.model import KinesisModel, PutEntry

BATCH = 500
READS = 5_000
NOW_MS = 1_700_000_000_000


def model_part(records: int) -> None:
    model = KinesisModel(limits=Limits(enforced=False))
    model.create_stream("s", 1, now_ms=NOW_MS)
    entries = [PutEntry(f"key-{index}", b"x" * 200) for index in range(BATCH)]
    numbers: list[str] = []
    draw = random.Random(1)
    rows: list[tuple[int, float, float]] = []
    step = records // 10
    print(f"{'records':>10} {'puts/s':>12} {'reads/s':>12}   per CPU second (a read: new iterator and 10 records)")
    for part in range(10):
        begin = time.process_time()
        for _ in range(step // BATCH):
            results = model.put_records("s", entries, now_ms=NOW_MS + part)
            numbers.append(results[0][1])
        put_rate = step / (time.process_time() - begin)
        begin = time.process_time()
        for _ in range(READS):
            iterator = model.get_shard_iterator(
                "s",
                "shardId-000000000000",
                "AT_SEQUENCE_NUMBER",
                now_ms=NOW_MS + part,
                sequence_number=draw.choice(numbers),
            )
            got = model.get_records(iterator, now_ms=NOW_MS + part, limit=10)
            assert len(got.records) == 10
        read_rate = READS / (time.process_time() - begin)
        rows.append(((part + 1) * step, put_rate, read_rate))
        print(f"{rows[-1][0]:>10,} {put_rate:>12,.0f} {read_rate:>12,.0f}")
    (_, first_put, first_read), (_, last_put, last_read) = rows[0], rows[-1]
    print(f"end / beginning: puts {last_put / first_put:.2f}, reads {last_read / first_read:.2f}")


def http_part(calls: int) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "streamgauge.infra.local.kinesis", "--port", "0", "--no-limits"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        port = int(server.stderr.readline().rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def call(operation: str, body: bytes) -> bytes:
            headers = {
                "X-Amz-Target": f"Kinesis_20131202.{operation}",
                "Content-Type": "application/x-amz-json-1.1",
            }
            connection.request("POST", "/", body, headers)
            response = connection.getresponse()
            answered = response.read()
            assert response.status == 200, answered
            return answered

        call("CreateStream", b'{"StreamName":"s","ShardCount":1}')
        for size, count in ((10_000, 40), (1_000, 400), (200, 500)):
            data = base64.b64encode(random.Random(size).randbytes(size)).decode()
            body = json.dumps(
                {
                    "StreamName": "s",
                    "Records": [{"Data": data, "PartitionKey": f"key-{index}"} for index in range(count)],
                }
            ).encode()
            begin = time.perf_counter()
            for _ in range(calls):
                call("PutRecords", body)
            seconds = time.perf_counter() - begin
            print(
                f"HTTP puts, {size:>6,} B records: {calls * count * size / seconds / 1e6:>6,.1f} MB/s, "
                f"{calls * count / seconds:>9,.0f} records/s"
            )
        shard = b'{"StreamName":"s","ShardId":"shardId-000000000000","ShardIteratorType":"TRIM_HORIZON"}'
        iterator = json.loads(call("GetShardIterator", shard))["ShardIterator"]
        begin, total, behind = time.perf_counter(), 0, 1
        while behind:
            answered = json.loads(call("GetRecords", json.dumps({"ShardIterator": iterator}).encode()))
            iterator, behind = answered["NextShardIterator"], answered["MillisBehindLatest"]
            total += sum(len(record["Data"]) * 3 // 4 for record in answered["Records"])
        seconds = time.perf_counter() - begin
        print(f"HTTP reads, all of it: {total / seconds / 1e6:,.1f} MB/s (with the client's json.loads)")
        connection.close()
    finally:
        server.terminate()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=100)
    arguments = parser.parse_args()
    model_part(arguments.records)
    http_part(arguments.calls)


if __name__ == "__main__":
    main()
