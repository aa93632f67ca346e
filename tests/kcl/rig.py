"""A local stack, and daemons of the KCL over it, each with its launcher; everything is ended by pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from kcl.load import PIPELINE, SCHEMA, Pane
from streamgauge.events.hash_key import HashRange
from streamgauge.infra.clients import Clients
from streamgauge.infra.deployment import stack_name, stack_parameters
from streamgauge.infra.local.stack import StackInfo, StackSettings, start_stack, stop_stack
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.commit.ports import ShardRow
from streamgauge.processors.commit.s3 import S3ObjectStore
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.hosts.kcl.child_log import LogEntry, decode_entry
from streamgauge.processors.hosts.kcl.leases import Lease, LeaseTable
from streamgauge.processors.hosts.pipeline_file import load_pipeline

__all__ = [
    "Finished",
    "KclRig",
    "Worker",
    "clean_environment",
    "started_stack",
    "template_parameters",
    "write_pipeline",
]

_CLI = [sys.executable, "-m", "streamgauge.cli"]
_PUTTING = Path(__file__).with_name("putting.py")
_MEASURES = ("readings", "total", "top")
_POLL_S = 0.1
# On a machine that others use as well, everything here takes several times what it takes alone.
_DEADLINE_S = 240.0


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    out: str
    err: str


class Worker:
    """One ``streamgauge process --host kcl``: the launcher, its Java process, and that one's children."""

    def __init__(self, rig: KclRig, name: str, arguments: Sequence[str]) -> None:
        self.folder = rig.folder / name
        self.name = name
        self.folder.mkdir()
        command = [
            *_CLI,
            "process",
            "--host",
            "kcl",
            "--json",
            "--failover",
            "2s",
            "--logs",
            str(self.folder),
            *arguments,
        ]
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self._launcher = subprocess.Popen(
                command,
                cwd=rig.folder,
                env=rig.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def entries(self) -> list[LogEntry]:
        """Everything that its children have said."""
        try:
            lines = (self.folder / "children.log").read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [entry for entry in map(decode_entry, lines) if entry is not None]

    @property
    def daemon_log(self) -> str:
        try:
            return (self.folder / "daemon.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def id(self) -> str:
        """The name under which it has leases."""
        properties = (self.folder / "kcl.properties").read_text().splitlines()
        return next(line.partition(" = ")[2] for line in properties if line.startswith("workerId"))

    @property
    def is_leader(self) -> bool:
        """Whether the KCL's last election chose it."""
        elections = [line for line in self.daemon_log.splitlines() if "Elected leaders:" in line]
        return bool(elections) and self.id in elections[-1]

    @property
    def java(self) -> int:
        """The pid of the running daemon, which is its group's too."""
        for path in Path("/proc").iterdir():
            if path.name.isdecimal() and path.name != str(os.getpid()):
                try:
                    cwd, command = (path / "cwd").readlink(), (path / "cmdline").read_bytes()
                except OSError:
                    continue
                if cwd == self.folder and b"MultiLangDaemon" in command:
                    return int(path.name)
        raise AssertionError(f"{self.name} has no daemon")

    def kill(self) -> None:
        """kill -9 of the launcher, the daemon and all its children: what a machine does that goes off."""
        java = self.java
        self._launcher.kill()
        self._launcher.wait()
        os.killpg(java, signal.SIGKILL)

    def kill_daemon(self) -> None:
        """kill -9 of Java alone; its children and the launcher are left."""
        os.kill(self.java, signal.SIGKILL)

    def stop(self) -> Finished:
        """What Ctrl-C and a service manager do."""
        self._launcher.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = _DEADLINE_S) -> Finished:
        status = self._launcher.wait(timeout_s)
        return Finished(status, (self.folder / "out").read_text(), (self.folder / "err").read_text())

    def close(self) -> None:
        if self._launcher.poll() is None:
            self._launcher.send_signal(signal.SIGTERM)
            try:
                self._launcher.wait(20.0)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def has_ended(self) -> bool:
        return self._launcher.poll() is not None

    def last_words(self) -> str:
        said = "\n".join(f"{entry.shard} {entry.event} {entry.message}" for entry in self.entries if entry.message)
        err = (self.folder / "err").read_text()
        return f"--- {self.name}\n{err[-1500:]}\n{said[-3000:]}\n{self.daemon_log[-1500:]}"


def write_pipeline(folder: Path) -> Path:
    """The pipeline and its schema."""
    (folder / "schemas" / "reading").mkdir(parents=True)
    (folder / "schemas" / "reading" / "1.json").write_text(SCHEMA)
    file = folder / "pipeline.toml"
    file.write_text(PIPELINE)
    return file


def template_parameters(pipeline: Pipeline, *, shards: int) -> dict[str, str]:
    return {**stack_parameters(pipeline, shards=shards), "ProcessorHost": "kcl"}


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def started_stack(folder: Path, *, shards: int) -> StackInfo:
    """The local stack, with the template for this host."""
    file = write_pipeline(folder)
    settings = StackSettings(
        stack_name=stack_name("kcl"),
        parameters=template_parameters(load_pipeline(file), shards=shards),
        pipeline_file=file,
        limits=False,
    )
    info = start_stack(folder, settings, environment=clean_environment())
    show_index(info)
    return info


def show_index(info: StackInfo) -> None:
    """MiniStack does not say of a table's index that it is active, where CloudFormation made it; so make it anew."""
    client = Clients(info.endpoints, region=info.region).dynamodb
    table = info.outputs["LeaseTableName"]
    (index,) = client.describe_table(TableName=table)["Table"]["GlobalSecondaryIndexes"]
    name = index["IndexName"]
    client.update_table(TableName=table, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": name}}])
    client.update_table(
        TableName=table,
        AttributeDefinitions=[
            {"AttributeName": key["AttributeName"], "AttributeType": "S"} for key in index["KeySchema"]
        ],
        GlobalSecondaryIndexUpdates=[
            {
                "Create": {
                    "IndexName": name,
                    "KeySchema": index["KeySchema"],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            }
        ],
    )
    client.close()


class KclRig:
    """Use it as a context manager. It stops the stack at its end."""

    def __init__(self, info: StackInfo, **environment: str) -> None:
        self.info = info
        self.folder = Path(info.home)
        self.pipeline = load_pipeline(info.pipeline_file)
        self.environment = (
            info.environment(clean_environment()) | {"STREAMGAUGE_HOME": info.home, "NO_COLOR": "1"} | environment
        )
        self.clients = Clients(self.info.endpoints, region=self.info.region)
        self.stream = self.info.outputs["StreamName"]
        self.workers: list[Worker] = []
        self._producers: list[subprocess.Popen[bytes]] = []
        self.store = DynamoDbStateStore(
            self.clients.dynamodb,
            self.info.outputs["StateTableName"],
            S3ObjectStore(self.clients.s3, self.info.outputs["StateBucketName"]),
            pipeline="kcl",
            state_epoch=1,
        )
        self.lease_table = LeaseTable(self.clients.dynamodb, self.info.outputs["LeaseTableName"])

    def __enter__(self) -> KclRig:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.close()
        for producer in self._producers:
            if producer.poll() is None:
                producer.kill()
            producer.wait()
        for client in (self.clients.kinesis, self.clients.dynamodb, self.clients.s3):
            client.close()
        stop_stack(self.info)

    def work(self, name: str, *arguments: str) -> Worker:
        """Start a worker."""
        worker = Worker(self, name, arguments)
        self.workers.append(worker)
        return worker

    def put(self, first: int, count: int, *, end: bool = False) -> Callable[[], None]:
        """Begin to put events; the answer waits for the last acknowledgement."""
        arguments = [str(first), str(count), self.stream, *(["end"] if end else [])]
        producer = subprocess.Popen([sys.executable, str(_PUTTING), *arguments], env=self.environment)
        self._producers.append(producer)

        def finish() -> None:
            assert producer.wait(_DEADLINE_S) == 0

        return finish

    def command(self, *arguments: str) -> Finished:
        """Run another command."""
        done = subprocess.run(
            [*_CLI, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def panes(self) -> list[Pane]:
        """What ``streamgauge results`` says."""
        done = self.command("results", "by_meter", "--json")
        assert done.status == 0, done.err
        return sorted(
            (pane["key"]["subject"], pane["window_start"], *map(pane["measures"].__getitem__, _MEASURES))
            for pane in json.loads(done.out)
        )

    def lag(self) -> dict[str, dict[str, object]]:
        """What ``streamgauge lag`` says, by shard."""
        done = self.command("lag", "--json")
        assert done.status == 0, done.err
        return {shard["shard_id"]: shard for shard in json.loads(done.out)["shards"]}

    def rows(self) -> dict[str, ShardRow]:
        return {row.shard.shard_id: row for row in self.store.rows()}

    def leases(self) -> dict[str, Lease]:
        return {lease.shard_id: lease for lease in self.lease_table.leases() or []}

    def owners(self) -> dict[str, str | None]:
        """The owners of the leases of shards that are not at their end."""
        return {shard_id: lease.owner for shard_id, lease in self.leases().items() if lease.checkpoint != "SHARD_END"}

    def open_shards(self) -> list[tuple[str, HashRange]]:
        """In the order of their hash keys."""
        listed = self.clients.kinesis.list_shards(StreamName=self.stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
        found = [
            (
                each["ShardId"],
                HashRange(int(each["HashKeyRange"]["StartingHashKey"]), int(each["HashKeyRange"]["EndingHashKey"])),
            )
            for each in listed
        ]
        return sorted(found, key=lambda entry: entry[1])

    def split(self, index: int) -> None:
        shard_id, hash_range = self.open_shards()[index]
        middle = (hash_range.first + hash_range.last) // 2
        self.clients.kinesis.split_shard(
            StreamName=self.stream, ShardToSplit=shard_id, NewStartingHashKey=str(middle + 1)
        )

    def merge(self, index: int) -> None:
        shards = self.open_shards()
        self.clients.kinesis.merge_shards(
            StreamName=self.stream, ShardToMerge=shards[index][0], AdjacentShardToMerge=shards[index + 1][0]
        )

    def is_processed(self) -> bool:
        """Whether nothing is left in any shard that its row does not cover."""
        rows = self.rows()
        open_shards = {shard_id for shard_id, _ in self.open_shards()}
        if not open_shards <= rows.keys() or not all(row.sealed or name in open_shards for name, row in rows.items()):
            return False
        for shard_id in open_shards:
            position = rows[shard_id].position
            if position is None:
                at = {"ShardIteratorType": "TRIM_HORIZON"}
            else:
                number = str(position.sequence_number)
                at = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number}
            iterator = self.clients.kinesis.get_shard_iterator(StreamName=self.stream, ShardId=shard_id, **at)
            answer = self.clients.kinesis.get_records(ShardIterator=iterator["ShardIterator"], Limit=1)
            if answer["Records"] or answer["MillisBehindLatest"]:
                return False
        return True

    def wait(self, condition: Callable[[], bool], what: str, *, running: Sequence[Worker] = ()) -> float:
        """Wait until it holds; the seconds that took."""
        began = monotonic()
        while not condition():
            for worker in running:
                assert not worker.has_ended, f"{worker.name} has ended\n{worker.last_words()}"
            assert monotonic() < began + _DEADLINE_S, f"waited for {what}\n" + "\n".join(
                worker.last_words() for worker in self.workers
            )
            sleep(_POLL_S)
        return monotonic() - began
