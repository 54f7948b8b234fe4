"""A data-parallel stage on workers as a simulation of discrete events: what tasks/cluster.py does, in simulated time.

A client starts, has at most two chunks a worker under way, sends them in order, each to a worker that is free, takes
the results in their order, does its own serial part for each (fetch, write), and only then sends another one. See
benchmarks/simulate.py for the command.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import simpy
from simpy.events import Event

from tasks.cluster import CHUNKS_A_THREAD

NEVER = float("inf")
SECONDS_AN_HOUR = 3600.0
Steps = Generator[Event, Any, None]


class Work(NamedTuple):
    """What a stage costs, in seconds of a machine that does nothing else."""

    start: float  # until the first chunks are sent
    chunks: Sequence[float]  # each chunk, on a worker
    serial: float  # the client's, for each chunk
    end: float  # after the last
    processors: float = 1.0  # that a chunk keeps busy
    warm_up: float = 0.0  # before a worker's first chunk: imports
    warm_up_processors: float = 1.0


class Place(NamedTuple):
    """Where it runs."""

    workers: int
    cores: float = 1.0  # of a machine
    on_a_machine: int = 1  # workers
    client_beside: bool = False  # the client is on the first machine; otherwise it has one of its own


class Trouble(NamedTuple):
    """What goes wrong."""

    deaths: float = 0.0  # of a worker, an hour
    kills: Sequence[float] = ()  # at these seconds a worker at work dies
    detected: float = 0.0  # seconds until the scheduler knows
    restarted: float = NEVER  # seconds until a dead worker is back
    stragglers: float = 0.0  # share of the chunks
    times: float = 1.0  # as long as they take
    allowed_failures: int = 3
    seed: int = 0


class Outcome(NamedTuple):
    """What came out: seconds; `busy` and `lost` are those of all workers together."""

    makespan: float  # infinite: no worker was left, or a chunk took too many with it
    busy: float
    lost: float
    deaths: int
    used: float  # share of the workers' time that went into what was not done again


class LostError(Exception):
    """A chunk took too many workers with it."""


@dataclass
class Job:
    """Work on a machine, which ends it when it has done `until` seconds of each of its jobs."""

    finished: Event
    until: float
    processors: float
    stopped: bool = False


class Machine:
    """Processors that jobs share: when they want more than there are, each gets the same part of what it wants."""

    def __init__(self, env: simpy.Environment, cores: float) -> None:
        self._env, self._cores = env, cores
        self._jobs: list[tuple[float, int, Job]] = []
        self._wanted = self._done = self._looked = 0.0
        self._number, self._alarm = itertools.count(), 0

    def begin(self, seconds: float, processors: float) -> Job:
        """Begin a job that takes so many seconds on an idle machine."""
        self._advance()
        job = Job(self._env.event(), self._done + seconds, processors)
        heapq.heappush(self._jobs, (job.until, next(self._number), job))
        self._count(job, 1)
        return job

    def stop(self, job: Job) -> None:
        """Stop a job before its end."""
        self._advance()
        job.stopped = True
        self._count(job, -1)

    def _count(self, job: Job, change: int) -> None:
        """Count a job in or out, and look again when the next one ends, unless something changes before."""
        self._wanted += change * job.processors
        while self._jobs and self._jobs[0][2].stopped:
            heapq.heappop(self._jobs)
        self._alarm += 1
        if self._jobs:
            left = max(0.0, self._jobs[0][0] - self._done)
            self._env.timeout(left / self._rate(), value=self._alarm).callbacks.append(self._end_next)

    def _end_next(self, alarm: Event) -> None:
        if alarm.value == self._alarm:
            self._advance()
            job = heapq.heappop(self._jobs)[2]
            job.finished.succeed()
            self._count(job, -1)

    def _advance(self) -> None:
        self._done += (self._env.now - self._looked) * self._rate()
        self._looked = self._env.now

    def _rate(self) -> float:
        return min(1.0, self._cores / self._wanted) if self._wanted > 0 else 1.0


class Simulation:
    """One run of a stage."""

    def __init__(self, work: Work, place: Place, trouble: Trouble) -> None:
        """Nothing happens yet; which chunks are stragglers is drawn here."""
        self._work, self._place, self._trouble = work, place, trouble
        self._env = simpy.Environment()
        self._draw = random.Random(trouble.seed)  # noqa: S311 - a simulation
        slow = [self._draw.random() < trouble.stragglers for _ in work.chunks]
        self._seconds = [took * (trouble.times if late else 1.0) for took, late in zip(work.chunks, slow, strict=True)]
        machines = -(-place.workers // place.on_a_machine)
        self._machines = [Machine(self._env, place.cores) for _ in range(machines)]
        self._ready = simpy.PriorityStore(self._env)  # numbers of chunks: the first goes first
        self._done = [self._env.event() for _ in work.chunks]
        self._held: dict[int, tuple[int, float]] = {}  # done and not fetched: the worker that has it, and its seconds
        self._processes: dict[int, simpy.Process] = {}  # by worker; the last of each
        self._at_work: dict[int, simpy.Process] = {}
        self._failures: Counter[int] = Counter()
        self._deaths, self._busy, self._lost = 0, 0.0, 0.0

    def run(self) -> Outcome:
        """Play it through."""
        for worker in range(self._place.workers):
            self._start(worker)
        for at in self._trouble.kills:
            self._env.process(self._kill(at))
        led = self._env.process(self._lead())
        with suppress(LostError):
            while not led.triggered and self._env.peek() < NEVER:
                self._env.step()
        makespan = self._env.now if led.triggered else NEVER
        used = (self._busy - self._lost) / (self._place.workers * makespan)
        return Outcome(makespan, self._busy, self._lost, self._deaths, used)

    def _lead(self) -> Steps:
        """Be the client."""
        machine = self._machines[0] if self._place.client_beside else Machine(self._env, 1.0)
        yield self._env.timeout(self._work.start)
        ahead = CHUNKS_A_THREAD * self._place.workers
        for chunk in range(min(ahead, len(self._done))):
            self._ready.put(chunk)
        for chunk in range(len(self._done)):
            yield self._done[chunk]
            self._held.pop(chunk, None)
            yield machine.begin(self._work.serial, 1.0).finished
            if chunk + ahead < len(self._done):
                self._ready.put(chunk + ahead)
        yield self._env.timeout(self._work.end)

    def _start(self, worker: int) -> None:
        self._processes[worker] = self._env.process(self._labour(worker))
        self._env.process(self._threaten(self._processes[worker]))

    def _labour(self, worker: int) -> Steps:
        """Be a worker, until its death."""
        machine = self._machines[worker // self._place.on_a_machine]
        before = [(self._work.warm_up, self._work.warm_up_processors)]
        while True:
            asked = self._ready.get()
            try:
                chunk = yield asked
            except simpy.Interrupt:
                asked.cancel()
                given: list[int] = [asked.value] if asked.triggered else []  # type: ignore[list-item]
                self._die(worker, given)
                return
            began = self._env.now
            self._at_work[worker] = self._processes[worker]
            try:
                yield from self._do(machine, [*before, (self._seconds[chunk], self._work.processors)])
            except simpy.Interrupt:
                self._busy += self._env.now - began
                self._lost += self._env.now - began
                self._blame(chunk)
                self._die(worker, [chunk])
                return
            finally:
                del self._at_work[worker]
            before = []
            self._busy += self._env.now - began
            self._held[chunk] = worker, self._env.now - began
            self._done[chunk].succeed()

    def _do(self, machine: Machine, jobs: list[tuple[float, float]]) -> Steps:
        """Do jobs one after the other: their seconds, and the processors they keep busy."""
        for seconds, processors in jobs:
            job = machine.begin(seconds, processors)
            try:
                yield job.finished
            finally:
                if not job.finished.triggered:
                    machine.stop(job)

    def _blame(self, chunk: int) -> None:
        self._failures[chunk] += 1
        if self._failures[chunk] > self._trouble.allowed_failures:
            raise LostError

    def _die(self, worker: int, chunks: list[int]) -> None:
        """Lose these chunks, and what the worker has done that nobody has fetched."""
        self._deaths += 1
        for chunk in [chunk for chunk, (holder, _) in self._held.items() if holder == worker]:
            self._lost += self._held.pop(chunk)[1]
            self._done[chunk] = self._env.event()
            chunks.append(chunk)
        self._env.process(self._do_again(chunks))
        if self._trouble.restarted < NEVER:
            self._env.process(self._restart(worker))

    def _do_again(self, chunks: list[int]) -> Steps:
        yield self._env.timeout(self._trouble.detected)
        for chunk in chunks:
            self._ready.put(chunk)

    def _restart(self, worker: int) -> Steps:
        yield self._env.timeout(self._trouble.restarted)
        self._start(worker)

    def _threaten(self, process: simpy.Process) -> Steps:
        """End a worker after a time that does not depend on its age."""
        if self._trouble.deaths:
            yield self._env.timeout(self._draw.expovariate(self._trouble.deaths / SECONDS_AN_HOUR))
            if process.is_alive:
                process.interrupt()

    def _kill(self, at: float) -> Steps:
        yield self._env.timeout(at)
        if self._at_work:
            self._at_work[min(self._at_work)].interrupt()


def simulate(work: Work, place: Place, trouble: Trouble = Trouble()) -> Outcome:  # noqa: B008 - immutable
    """Return what a stage would take; the same for the same arguments."""
    return Simulation(work, place, trouble).run()
