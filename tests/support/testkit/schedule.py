"""Threads of which one runs at a time, and a seed that says which: the same seed, the same interleaving.

A task runs until its next ``step`` or until it waits for a future; then the schedule chooses the next one. Locks are
never contended, because nobody takes a step while holding one.
"""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from typing_extensions import override

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits for another one."""


class _Task:
    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work
        self.go = threading.Semaphore(0)
        self.may_run: Callable[[], bool] = lambda: True
        self.over = False


class Schedule:
    """Tasks, and the thread that lets one of them run after the other."""

    def __init__(self, seed: int) -> None:
        """Nothing runs before ``run``."""
        self._rng = random.Random(seed)
        self._tasks: list[_Task] = []
        self._stopped = threading.Semaphore(0)
        self._local = threading.local()
        self.errors: list[BaseException] = []
        self.steps = 0

    def add(self, work: Callable[[], None]) -> None:
        """A task more; also while others run."""
        task = _Task(work)
        self._tasks.append(task)
        threading.Thread(target=self._run_task, args=(task,), daemon=True).start()

    def _run_task(self, task: _Task) -> None:
        self._local.task = task
        task.go.acquire()
        try:
            task.work()
        except BaseException as error:  # noqa: BLE001 - whoever runs the schedule tells of it
            self.errors.append(error)
        task.over = True
        self._stopped.release()

    def step(self, until: Callable[[], bool] = lambda: True) -> None:
        """Let others run; go on when it is this task's turn and ``until`` holds."""
        task: _Task = self._local.task
        task.may_run = until
        self._stopped.release()
        task.go.acquire()

    def run(self) -> None:
        """Until all tasks are over; the first error of a task is raised."""
        while self._tasks:
            ready = [task for task in self._tasks if task.may_run()]
            if not ready:
                raise Deadlock(f"{len(self._tasks)} tasks wait for each other")
            task = self._rng.choice(ready)
            self.steps += 1
            task.go.release()
            self._stopped.acquire()
            if task.over:
                self._tasks.remove(task)
            if self.errors:
                raise self.errors[0]

    def condition(self) -> "ScheduledCondition":
        """In place of a condition."""
        return ScheduledCondition(threading.Lock(), self)

    def executor(self, _workers: int, _name: str) -> "ScheduledExecutor":
        """In place of a thread pool."""
        return ScheduledExecutor(self)


class ScheduledFuture(Future[T]):
    """Whoever waits for it lets others run."""

    def __init__(self, schedule: Schedule) -> None:
        """Of this schedule."""
        super().__init__()
        self._schedule = schedule

    @override
    def result(self, timeout: float | None = None) -> T:
        if not self.done():
            self._schedule.step(self.done)
        return super().result(0)


class ScheduledExecutor(Executor):
    """Every job is a task of its own."""

    def __init__(self, schedule: Schedule) -> None:
        """Of this schedule."""
        self._schedule = schedule

    @override
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = ScheduledFuture(self._schedule)

        def work() -> None:
            try:
                result = fn(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - it is the future's
                future.set_exception(error)
            else:
                future.set_result(result)

        self._schedule.add(work)
        return future


class ScheduledCondition:
    """In place of a condition: who waits lets others run, and looks again when it is its turn."""

    def __init__(self, lock: threading.Lock, schedule: Schedule) -> None:
        """Over the lock that its users take."""
        self._lock = lock
        self._schedule = schedule

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> None:  # noqa: ARG002 - as a condition has it
        """Let others run once."""
        self._lock.release()
        self._schedule.step()
        self._lock.acquire()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:  # noqa: ARG002 - as above
        """Let others run until it holds."""
        if not predicate():
            self._lock.release()
            self._schedule.step(predicate)
            self._lock.acquire()
        return predicate()

    def notify_all(self) -> None:
        """Whoever waits looks again anyhow."""
