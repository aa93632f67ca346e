"""The same stack and the same load with Lambda as the host: its functions are killed, stopped, and time out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from time import sleep, time_ns

import psutil

from chaos.rig import Rig
from streamgauge.events.control import Tick, control_event
from streamgauge.events.envelope import encode_event
from streamgauge.infra.local.functions import kill_functions, temporary_folder
from streamgauge.infra.local.record import FOLDER
from streamgauge.infra.local.stack import StackSettings
from streamgauge.infra.packaging.build import build_package

__all__ = ["LambdaRig"]

# A cold start on a busy machine takes several seconds.
_TIMEOUT_S = 25
_EVENT_SOURCE = [sys.executable, "-m", "streamgauge.infra.local.event_source", "--schedule-interval", "1s"]


class LambdaRig(Rig):
    """There are no workers: whatever processes a shard was started by an invocation."""

    def __init__(self, folder: Path, seed: int, rng: Random) -> None:
        super().__init__(folder, seed, rng)
        self.killed = self.stopped = 0
        for name in ("ProcessorFunctionName", "TickFunctionName"):
            self._mistreat(self.info.outputs[name])
        self.event_source = self._start("event-source", _EVENT_SOURCE)

    def close(self) -> None:
        """End whoever calls through the proxies, before these are closed."""
        self._children[self.event_source].kill()
        kill_functions(self.info.folder)
        super().close()

    def work(self) -> str:
        """Nobody has to be started."""
        return ""

    def process_to_the_end(self) -> None:
        """Ticks keep coming, so there is no end: wait until what is there now has been committed."""
        marks = self._mark()

        def is_processed() -> bool:
            rows = {row.shard.shard_id: row for row in self.store.rows()}
            reached = {
                shard_id: row.position.sequence_number for shard_id, row in rows.items() if row.position is not None
            }
            are_sealed = all(row.sealed for shard_id, row in rows.items() if shard_id not in marks)
            return are_sealed and all(reached.get(shard_id, -1) >= number for shard_id, number in marks.items())

        self.wait(is_processed, "everything to be processed")

    def _mark(self) -> dict[str, int]:
        """Put one more tick into each open shard: where it stands."""
        found = {}
        for shard_id, hash_range in self.open_shards():
            now_ms = time_ns() // 1_000_000
            put = self.clients.kinesis.put_record(
                StreamName=self.info.outputs["StreamName"],
                Data=encode_event(control_event("mark", Tick(now_ms), id=f"{shard_id}/{now_ms}", time_ms=now_ms)),
                PartitionKey="mark",
                ExplicitHashKey=str(hash_range.first),
            )
            found[put["ShardId"]] = int(put["SequenceNumber"])
        return found

    def kill_function(self, number: int) -> None:
        """Kill every process of the functions, which are in the midst of an invocation or wait for the next one."""
        self.wait(lambda: any(self._functions()), "an invocation")
        for process in self._functions():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                self.killed += 1

    def pause_function(self, number: int) -> None:
        """Stop the functions' processes, for a moment or until their invocations have timed out."""
        self.wait(lambda: any(self._functions()), "an invocation")
        stopped = list(self._functions())
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                self.stopped += 1
        sleep(self.rng.choice([2.0, _TIMEOUT_S + 2.0]))
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def kill_event_source(self, number: int) -> None:
        """The new one begins at the beginning of the stream, as a new event source mapping does."""
        self._kill(self.event_source)
        self.event_source = self._start("event-source", _EVENT_SOURCE)

    def _settings(self) -> StackSettings:
        package = build_package(
            self.folder / "pipeline.toml",
            temporary_folder(self.folder / FOLDER) / "package",
            target=None,
            say=lambda _: None,
        )
        return replace(super()._settings(), package=package)

    def _mistreat(self, function: str) -> None:
        """From now on the function's calls go through the proxies, and it has little time."""
        configured = self.clients.functions.get_function_configuration(FunctionName=function)
        variables = configured["Environment"]["Variables"] | {
            "AWS_ENDPOINT_URL": self.aws.url,
            "AWS_ENDPOINT_URL_KINESIS": self.kinesis.url,
        }
        self.clients.functions.update_function_configuration(
            FunctionName=function, Timeout=_TIMEOUT_S, Environment={"Variables": variables}
        )

    def _functions(self) -> Iterator[psutil.Process]:
        code = f"{temporary_folder(self.info.folder)}/"
        for process in psutil.process_iter(["cmdline"]):
            if any(argument.startswith(code) for argument in process.info["cmdline"] or ()):
                yield process
