"""Clear-text HTTP/2 with prior knowledge, as the KCL's Kinesis client speaks it."""

from __future__ import annotations

import base64
import json
import socket
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

from streamgauge.infra.local.kinesis.server import LocalKinesis


class Http2:
    """A client on one connection; requests may be sent together."""

    def __init__(self, endpoint_url: str) -> None:
        address = urlsplit(endpoint_url)
        assert address.hostname is not None and address.port is not None
        self.authority = address.netloc
        self.socket = socket.create_connection((address.hostname, address.port), timeout=10)
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, str] = {}
        self.ended: set[int] = set()
        self._flush()

    def close(self) -> None:
        self.connection.close_connection()
        self._flush()
        self.socket.close()

    def send(self, operation: str, **parameters: object) -> int:
        stream = self.connection.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":path", "/"),
            (":scheme", "http"),
            (":authority", self.authority),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", f"Kinesis_20131202.{operation}"),
        ]
        self.connection.send_headers(stream, headers)
        body = json.dumps(parameters).encode()
        while body:
            size = min(
                len(body),
                self.connection.local_flow_control_window(stream),
                self.connection.max_outbound_frame_size,
            )
            if size:
                self.connection.send_data(stream, body[:size])
                body = body[size:]
                self._flush()
            else:
                self._receive()
        self.connection.end_stream(stream)
        self._flush()
        return stream

    def answer(self, stream: int) -> dict[str, object]:
        while stream not in self.ended:
            self._receive()
        assert self.statuses[stream] == "200", self.bodies[stream]
        body = self.bodies.get(stream, b"")
        return json.loads(body) if body else {}  # type: ignore[no-any-return]

    def call(self, operation: str, **parameters: object) -> dict[str, object]:
        return self.answer(self.send(operation, **parameters))

    def _flush(self) -> None:
        self.socket.sendall(self.connection.data_to_send())

    def _receive(self) -> None:
        data = self.socket.recv(65_536)
        assert data, "the server closed the connection"
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.statuses[event.stream_id] = dict(event.headers)[":status"]
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
        self._flush()


def test_records_go_in_and_out_over_one_http2_connection() -> None:
    with LocalKinesis() as server:
        client = Http2(server.endpoint_url)
        client.call("CreateStream", StreamName="s", ShardCount=1)
        payload = base64.b64encode(b"x" * 900_000).decode()
        assert client.call("PutRecord", StreamName="s", PartitionKey="k", Data=payload)["ShardId"]
        iterator = client.call(
            "GetShardIterator",
            StreamName="s",
            ShardId="shardId-000000000000",
            ShardIteratorType="TRIM_HORIZON",
        )["ShardIterator"]
        (record,) = client.call("GetRecords", ShardIterator=iterator)["Records"]  # type: ignore[misc]
        assert record["Data"] == payload  # type: ignore[index]
        client.close()


def test_many_requests_share_an_http2_connection() -> None:
    with LocalKinesis() as server:
        client = Http2(server.endpoint_url)
        client.call("CreateStream", StreamName="s", ShardCount=2)
        streams = [client.send("DescribeStreamSummary", StreamName="s") for _ in range(50)]
        for stream in reversed(streams):
            summary = client.answer(stream)["StreamDescriptionSummary"]
            assert summary["OpenShardCount"] == 2  # type: ignore[index]
        client.close()
