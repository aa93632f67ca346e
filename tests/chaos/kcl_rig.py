"""The same stack and the same load with the KCL as the host: launcher, Java, children are killed and stopped."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import monotonic

import psutil

from chaos.rig import CLI, Rig

__all__ = ["KclRig"]


class KclRig(Rig):
    """A worker is a launcher with all that it has started. Java speaks HTTP/2, so nothing of Kinesis's is lost here."""

    # A start of Java, and of a child, on a busy machine.
    deadline_s = 180.0

    def __init__(self, folder: Path, seed: int, rng: Random) -> None:
        super().__init__(folder, seed, rng)
        self._faulty["AWS_ENDPOINT_URL_KINESIS"] = self.info.kinesis_url
        self.ended: list[str] = []

    def work(self) -> str:
        """Start a worker."""
        logs = self.folder / f"kcl-{len(self.ended)}-{len(self.workers)}-{monotonic():.0f}"
        command = [*CLI, "process", "--host", "kcl", "--failover", "2s", "--grace", "20s", "--logs", str(logs)]
        name = self._start("kcl", command)
        self.workers.append(name)
        return name

    def close(self) -> None:
        for name in self.workers:
            for process in self._all_of(name):
                with contextlib.suppress(psutil.Error):
                    process.resume()
            with contextlib.suppress(ProcessLookupError):
                self._children[name].send_signal(signal.SIGTERM)
        for name in self.workers:
            self._children[name].wait(self.deadline_s)
        super().close()

    def kill_launcher(self, number: int) -> None:
        """Kill the launcher alone, and start another worker: the daemon that it leaves behind ends by itself."""
        name = self._working()
        left = [process for process in self._all_of(name) if process.pid != self._children[name].pid]
        self._end_worker(name, signal.SIGKILL)
        self.work()
        self.wait(lambda: not any(map(_runs, left)), "what a killed launcher leaves behind to end")
        self.ended.append("launcher")

    def kill_daemon(self, number: int) -> None:
        """Kill Java alone: its children save what they have, and the launcher starts it again."""
        self._kill_one("java", lambda process: "java" in process.name())

    def kill_child(self, number: int) -> None:
        """Kill one child: the daemon ends with it, and the launcher starts it again."""
        self._kill_one("child", lambda process: any("kcl_child" in word for word in process.cmdline()))

    def pause_worker(self, number: int) -> None:
        """Stop a worker, Java and children too, until another has claimed its shards; then it goes on as a zombie."""
        name = self._working()
        stopped = self._all_of(name)
        for process in stopped:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        before = self.owners()
        other = self.work()

        def is_taken_over() -> bool:
            now = self.owners()
            return all(now.get(shard_id) != owner for shard_id, owner in before.items())

        self.wait(is_taken_over, "the shards of a stopped worker to be claimed")
        for process in stopped:
            with contextlib.suppress(psutil.Error):
                process.resume()
        self.ended.append("zombie")
        # One is enough, and a start of Java is dear.
        self._end_worker(self.rng.choice([name, other]), signal.SIGTERM)

    def logs(self) -> str:
        children = sorted(self.folder.glob("kcl-*/children.log"), key=lambda path: path.stat().st_mtime)[-2:]
        said = [line for path in children for line in path.read_text().splitlines() if '"message":""' not in line]
        return super().logs() + "\n--- children\n" + "\n".join(said[-20:])

    def _working(self) -> str:
        """A worker that has claimed shards."""
        name = self.rng.choice(self.workers) if self.workers else self.work()
        self.wait(lambda: self.owners() != {}, "the first claims")
        return name

    def _kill_one(self, what: str, is_it: Callable[[psutil.Process], bool]) -> None:
        name = self._working()
        for process in self._all_of(name):
            with contextlib.suppress(psutil.Error):
                if is_it(process):
                    process.kill()
                    self.ended.append(what)
                    return

    def _all_of(self, name: str) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            launcher = psutil.Process(self._children[name].pid)
            return [launcher, *launcher.children(recursive=True)]
        return []


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
