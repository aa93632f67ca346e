"""The stack and the processes of one chaos run: what is started, killed, stopped, resharded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic, sleep

from click.testing import CliRunner

from chaos.load import EVENTS_PER_ROUND, PIPELINE, SCHEMA
from chaos.truth import Pane, Truth
from streamgauge.cli.app import _cli
from streamgauge.events.hash_key import HashRange
from streamgauge.infra.clients import Clients
from streamgauge.infra.deployment import stack_name, stack_parameters
from streamgauge.infra.local.faulty_proxy import FaultyProxy, Treatment
from streamgauge.infra.local.stack import StackSettings, start_stack, stop_stack
from streamgauge.processors.commit.dynamodb import DynamoDbStateStore
from streamgauge.processors.commit.s3 import S3ObjectStore
from streamgauge.processors.hosts.pipeline_file import load_pipeline

__all__ = ["CLI", "IN_THIS_PROCESS", "Rig"]

_RATE = 400.0
# Generous, for a busy machine.
_POLL_S = 0.25
# Short, so that nobody waits long for a successor; still several times what a commit takes on a busy machine.
_LEASE = "4s"
_WORKERS_MAX = 3
# A command's environment and its output are those of the whole process.
IN_THIS_PROCESS = threading.Lock()
_MEASURES = ("readings", "total", "top")
CLI = [sys.executable, "-m", "streamgauge.cli"]
_PUTTING = Path(__file__).with_name("putting.py")
# 2 -> 4 -> 3 -> 1, and on to 2 again: how many merges, one after the other; none: every shard is split.
_RESHARDS = (0, 1, 2, 0)


@dataclass
class Weather:
    """How often calls fail, drawn for each; changed from round to round."""

    rng: Random
    lose: float = 0.0
    refuse: float = 0.0
    delay_s_max: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return f"{self.lose:.1%} lost, {self.refuse:.1%} refused, up to {self.delay_s_max} s late"

    def treat(self, operation: str) -> Treatment:
        with self.lock:
            drawn, delay_s = self.rng.random(), self.rng.random() * self.delay_s_max
        return Treatment(
            refuse=drawn < self.refuse, lose=self.refuse <= drawn < self.refuse + self.lose, delay_s=delay_s
        )


class Rig:
    """Everything is ended by `close`, by its pid."""

    deadline_s = 120.0

    def __init__(self, folder: Path, seed: int, rng: Random) -> None:
        self.seed, self.rng, self.folder = seed, rng, folder
        (folder / "schemas" / "reading").mkdir(parents=True)
        (folder / "schemas" / "reading" / "1.json").write_text(SCHEMA)
        (folder / "pipeline.toml").write_text(PIPELINE)
        self.pipeline = load_pipeline(folder / "pipeline.toml")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.info = start_stack(folder, self._settings(), environment=clean)
        self.clients = Clients(self.info.endpoints, region=self.info.region)
        self.weather = Weather(Random(seed))
        self.aws, self.kinesis, self.puts = (
            FaultyProxy(url, self.weather.treat).start()
            for url in (self.info.aws_url, self.info.kinesis_url, self.info.kinesis_url)
        )
        self._plain = self.info.environment(clean) | {"STREAMGAUGE_HOME": self.info.home, "NO_COLOR": "1"}
        self._faulty = self._plain | {
            "AWS_ENDPOINT_URL": self.aws.url,
            "AWS_ENDPOINT_URL_KINESIS": self.kinesis.url,
        }
        self._count = 0
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.workers: list[str] = []
        self.journal = folder / "journal"
        self.truth = Truth(seed, self.journal, folder / "archive")
        self.done: list[str] = []
        self._reshards = 0
        self.store = DynamoDbStateStore(
            self.clients.dynamodb,
            self.info.outputs["StateTableName"],
            S3ObjectStore(self.clients.s3, self.info.outputs["StateBucketName"]),
            pipeline="chaos",
            state_epoch=1,
        )
        self.delivery = self._start("delivery", [*CLI, "deliver", "--max-age", "1s"])

    def _settings(self) -> StackSettings:
        return StackSettings(
            stack_name=stack_name("chaos"),
            parameters=stack_parameters(self.pipeline, shards=2),
            pipeline_file=self.folder / "pipeline.toml",
        )

    def close(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        for proxy in (self.aws, self.kinesis, self.puts):
            proxy.close()
        for client in (self.clients.kinesis, self.clients.dynamodb, self.clients.s3):
            client.close()
        stop_stack(self.info)

    # --- one round ---------------------------------------------------------------------------------------------------

    def put(self, number: int) -> None:
        """Begin to put the events of a round, or what a killed producer left of them."""
        put, _ = self.truth.of_journal()
        first = max(number * EVENTS_PER_ROUND, max(put, default=-1) + 1)
        count = (number + 1) * EVENTS_PER_ROUND - first
        arguments = [str(self.seed), str(first), str(count), str(_RATE), self.info.outputs["StreamName"]]
        command = [sys.executable, str(_PUTTING), *arguments, str(self.journal)]
        environment = self._faulty | {"AWS_ENDPOINT_URL_KINESIS": self.puts.url}
        self.producer = self._start("producer", command, environment=environment, stdin=True)

    def work(self) -> str:
        """Start a worker."""
        name = self._start("worker", [*CLI, "process", "--lease", _LEASE])
        self.workers.append(name)
        return name

    def end_input(self) -> None:
        """Wait until all is acknowledged and nothing is on its way any more; then state the end of the input."""
        child = self._children[self.producer]
        self.wait(self._has_put, "the producer to have put everything")
        self.wait(lambda: not self.puts.calls_open, "what killed producers had on its way")
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        self._ended_well(self.producer)

    def process_to_the_end(self) -> None:
        """Wait until nothing is left in any shard that its row does not cover; perhaps others finish what was begun."""
        if self.rng.random() < 0.3:
            for name in list(self.workers):
                self._end_worker(name, self.rng.choice([signal.SIGKILL, signal.SIGTERM]))
        self._look_after_workers()
        if not self.workers:
            self.work()
        self.wait(self._is_processed, "everything to be processed")

    def audit(self) -> tuple[int, str]:
        """Exit status and what it says: the checks that do not hold."""
        status, out, err = self._command("audit", "--json", "--wait", "30s")
        failed = [
            check
            for check in json.loads(out)["checks"]
            if check["expected"] != check["found"] or check["missing"] or check["doubled"]
        ]
        return status, err + json.dumps(failed, indent=1)

    def panes(self) -> list[Pane]:
        """What ``streamgauge results`` says."""
        status, out, err = self._command("results", "by_meter", "--json")
        assert status == 0, err
        return sorted(
            (pane["key"]["subject"], pane["window_start"], *map(pane["measures"].__getitem__, _MEASURES))
            for pane in json.loads(out)
        )

    def expected_panes(self) -> list[Pane]:
        """What DuckDB says."""
        self.truth.copy_archive(self.clients.s3, self.info.outputs["ArchiveBucketName"])
        return self.truth.panes()

    # --- what befalls it ---------------------------------------------------------------------------------------------

    def kill_producer(self, number: int) -> None:
        """A producer that is killed is another source when it comes back; what it had not heard of is in doubt."""
        if self._has_put():
            return
        self._kill(self.producer)
        self.put(number)

    def kill_processor(self, number: int) -> None:
        """Kill one of the workers, or all, and start another; now and then one more."""
        self._look_after_workers()
        for name in self.rng.sample(self.workers, k=self.rng.randint(min(1, len(self.workers)), len(self.workers))):
            self._end_worker(name, signal.SIGKILL)
        for _ in range(min(self.rng.choice([1, 1, 2]), _WORKERS_MAX - len(self.workers))):
            self.work()

    def kill_delivery(self, number: int) -> None:
        """Kill delivery, and start it again."""
        self._kill(self.delivery)
        self.delivery = self._start("delivery", [*CLI, "deliver", "--max-age", "1s"])

    def pause_worker(self, number: int) -> None:
        """Stop all workers but a new one until it has claimed their shards; then they go on as zombies."""
        self._look_after_workers()
        while len(self.workers) >= _WORKERS_MAX:
            self._end_worker(self.workers[0], signal.SIGTERM)
        stopped = list(self.workers) or [self.work()]
        self.wait(lambda: self.owners() != {}, "the first claims")
        for name in stopped:
            self._children[name].send_signal(signal.SIGSTOP)
        before = self.owners()
        self.work()

        def is_taken_over() -> bool:
            now = self.owners()
            return all(now.get(shard_id) != owner for shard_id, owner in before.items())

        self.wait(is_taken_over, "the shards of stopped workers to be claimed")
        for name in stopped:
            self._children[name].send_signal(signal.SIGCONT)

    def reshard(self, number: int) -> None:
        """The next step of 2 -> 4 -> 3 -> 1 -> 2."""
        merges = _RESHARDS[self._reshards % len(_RESHARDS)]
        self._reshards += 1
        for _ in range(merges):
            shards = self.open_shards()
            at = self.rng.randrange(len(shards) - 1)
            self._merge(shards[at][0], shards[at + 1][0])
        for shard_id, hash_range in [] if merges else self.open_shards():
            self._split(shard_id, hash_range)

    def owners(self) -> dict[str, str]:
        """By shard that somebody holds: who."""
        return {row.shard.shard_id: row.owner for row in self.store.rows() if row.owner is not None and not row.sealed}

    def open_shards(self) -> list[tuple[str, HashRange]]:
        """In the order of their hash keys."""
        listed = self.clients.kinesis.list_shards(
            StreamName=self.info.outputs["StreamName"], ShardFilter={"Type": "AT_LATEST"}
        )["Shards"]
        ranges = [
            (
                each["ShardId"],
                HashRange(int(each["HashKeyRange"]["StartingHashKey"]), int(each["HashKeyRange"]["EndingHashKey"])),
            )
            for each in listed
        ]
        return sorted(ranges, key=lambda entry: entry[1])

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        until = monotonic() + self.deadline_s
        while not condition():
            self._look_after_workers()
            assert monotonic() < until, f"waited {self.deadline_s:.0f} s for {what}\n{self.logs()}"
            sleep(_POLL_S)

    def logs(self) -> str:
        """The last words of everybody."""
        found = sorted(self.folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in found[-8:])

    # --- processes ---------------------------------------------------------------------------------------------------

    def _start(
        self, name: str, command: Sequence[str], *, environment: dict[str, str] | None = None, stdin: bool = False
    ) -> str:
        self._count += 1
        name = f"{self._count:03}-{name}"
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.log").open("wb") as log:
            self._children[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment or self._faulty,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        return name

    def _command(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command in this process, straight to the stack."""
        with IN_THIS_PROCESS:
            done = CliRunner(env=self._plain).invoke(_cli, arguments, standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return done.return_value or 0, done.stdout, done.stderr

    def _is_processed(self) -> bool:
        rows = {row.shard.shard_id: row for row in self.store.rows()}
        stream = self.info.outputs["StreamName"]
        open_shards = [shard_id for shard_id, _ in self.open_shards()]
        if not all(row.sealed or shard_id in open_shards for shard_id, row in rows.items()):
            return False
        for shard_id in open_shards:
            row = rows.get(shard_id)
            if row is None or (row.position is None and not row.shard.parents):
                return False
            at = {"ShardIteratorType": "TRIM_HORIZON"}
            if row.position is not None:
                number = str(row.position.sequence_number)
                at = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number}
            iterator = self.clients.kinesis.get_shard_iterator(StreamName=stream, ShardId=shard_id, **at)
            answer = self.clients.kinesis.get_records(ShardIterator=iterator["ShardIterator"])
            if answer["Records"] or answer["MillisBehindLatest"]:
                return False
        return True

    def _kill(self, name: str) -> None:
        child = self._children[name]
        assert child.poll() is None, f"{name} has ended by itself\n{self.logs()}"
        child.kill()
        child.wait()
        if child.stdin is not None:
            child.stdin.close()

    def _end_worker(self, name: str, by: signal.Signals) -> None:
        self.workers.remove(name)
        self._children[name].send_signal(by)
        status = self._children[name].wait(self.deadline_s)
        assert status in (0, -by), f"{name}: exit {status}\n{self.logs()}"

    def _look_after_workers(self) -> None:
        """A worker may end by itself, well, when others have all its shards."""
        for name in list(self.workers):
            status = self._children[name].poll()
            if status is not None:
                assert status == 0, f"{name}: exit {status}\n{self.logs()}"
                self.workers.remove(name)
        assert self._children[self.delivery].poll() is None, f"delivery has ended\n{self.logs()}"

    def _ended_well(self, name: str) -> None:
        self.wait(lambda: self._children[name].poll() is not None, f"{name} to end")
        assert self._children[name].returncode == 0, f"{name}\n{self.logs()}"

    def _has_put(self) -> bool:
        ended = self._children[self.producer].poll() is not None
        assert not ended, f"{self.producer} has ended\n{self.logs()}"
        return b"put" in (self.folder / f"{self.producer}.out").read_bytes()

    def _split(self, shard_id: str, hash_range: HashRange) -> None:
        stream = self.info.outputs["StreamName"]
        middle = (hash_range.first + hash_range.last) // 2 + 1
        self.clients.kinesis.split_shard(StreamName=stream, ShardToSplit=shard_id, NewStartingHashKey=str(middle))
        self._until_active()

    def _merge(self, shard_id: str, adjacent: str) -> None:
        stream = self.info.outputs["StreamName"]
        self.clients.kinesis.merge_shards(StreamName=stream, ShardToMerge=shard_id, AdjacentShardToMerge=adjacent)
        self._until_active()

    def _until_active(self) -> None:
        stream = self.info.outputs["StreamName"]
        self.wait(
            lambda: (
                self.clients.kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"][
                    "StreamStatus"
                ]
                == "ACTIVE"
            ),
            "the stream to be active",
        )
