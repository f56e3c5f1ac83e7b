"""The work on a Ray cluster, or on Ray's processes of this machine: the extra ``ray``."""

from __future__ import annotations

import logging
import os
from typing import Any

from untrojan.bench.workers import Ended, Task, perform
from untrojan.data.named import VARIABLE
from untrojan.errors import MissingExtraError, UntrojanError


class RayWorkers:
    """Tasks as Ray's, at most ``jobs`` at once, each of ``threads`` processors and, on CUDA, a share of the GPUs.

    address: of a cluster ("auto", "host:6379", "ray://..."); None starts Ray here. jobs None: as many as the cluster
    has processors. The folder of results, the zoo and the data must be at the same paths on every node, and untrojan
    must be installed there. Raises MissingExtraError without the package, UntrojanError if there is no cluster.
    """

    def __init__(self, address: str | None = None, *, jobs: int | None = None, device: str = "cpu"):
        try:
            import ray
        except ImportError:
            raise MissingExtraError('--ray needs the package ray: pip install "untrojan[ray]"') from None
        self._ray: Any = ray
        passed = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
        if VARIABLE in os.environ:
            passed[VARIABLE] = os.path.abspath(os.environ[VARIABLE])
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": passed},
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=None if address else False,
            )
            resources, nodes = ray.cluster_resources(), ray.nodes()
        except (ConnectionError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())[:200]
            raise UntrojanError(f"no Ray cluster at {address or 'this machine'} ({text}); see ray start") from None
        processors = int(resources.get("CPU", 1))
        self.jobs = jobs or processors
        # A task that asks for more than any one machine has would wait for ever.
        widest = max((int(n["Resources"].get("CPU", 0)) for n in nodes if n["Alive"]), default=processors)
        self.threads = max(1, min(processors // self.jobs, widest))
        # What Ray would try again by itself would be tried twice as often as a cell may be.
        # A task that asks for no GPU is shown none.
        graphics = resources.get("GPU", 0.0) / self.jobs if device.startswith("cuda") else 0
        self._remote = ray.remote(num_cpus=self.threads, num_gpus=min(1.0, graphics), max_retries=0)(perform)
        self._tasks: dict[Any, Task] = {}

    @property
    def idle(self) -> bool:
        """Whether another task can be begun now."""
        return len(self._tasks) < self.jobs

    def submit(self, task: Task) -> None:
        """Hand a task to Ray."""
        self._tasks[self._remote.remote(task, self.threads)] = task

    def next(self) -> Ended:
        """Wait until a task has ended."""
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1)
        task = self._tasks.pop(ready[0])
        try:
            return Ended(task, self._ray.get(ready[0]))
        except self._ray.exceptions.RayError as error:
            text = " ".join(str(error).split())[:200]
            return Ended(task, f"its worker died ({type(error).__name__}: {text})", lost=True)

    def close(self) -> None:
        """Leave the cluster; what still runs is cancelled."""
        for reference in self._tasks:
            self._ray.cancel(reference, force=True)
        self._tasks.clear()
        self._ray.shutdown()
