"""Break `pull` at every point or at random times; after each: the checker, `list`, the same pull again, the checker.

`ci/faults.py` runs whole sweeps; `test_pull_kills.py` runs samples.
"""

import contextlib
import json
import queue
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from tests.faults import oracle, pull_oracle, strace
from tests.faults.arena import Arena, Ended, ended
from tests.faults.mounts import PowerSupply
from tests.faults.sweep import KILL, STORAGE_STATUS, Fault, Report, tried
from tests.tools.gguf_file import model_bytes
from tests.tools.hub_models import OWNER_REPO, projector, quants, shards
from tests.tools.local_hub import LocalHub

Files = Mapping[str, bytes]
WORKERS = 2
SLACK_BYTES = 256 * 1024
"""What may come twice because of one kill: bytes on their way, and in the buffer of the file."""
_TRANSFER_S = 1.0


@dataclass(frozen=True)
class PullCase:
    """A pull of the commit `files`, where the commit `before` was pulled already (or nothing was)."""

    name: str
    files: Files
    before: Files = field(default_factory=dict)
    is_checkpoint: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The command line."""
        return ("pull", "--checkpoint", OWNER_REPO) if self.is_checkpoint else ("pull", OWNER_REPO)

    def violations(self, arena: "PullArena", commits: Sequence[Files], *, settled: bool = False) -> list[str]:
        """Return what the checker says about the repository's files."""
        if self.is_checkpoint:
            return pull_oracle.checkpoint_violations(arena.place / "checkpoint", commits, settled=settled)
        return pull_oracle.violations(arena.place, commits, settled=settled)

    @property
    def new_bytes(self) -> int:
        """How many bytes have to come."""
        return sum(len(content) for name, content in self.files.items() if self.before.get(name) != content)


def _checkpoint(size: int, count: int) -> Files:
    """Return a checkpoint whose weights and configuration depend on the number of shards."""
    chance = random.Random(count)  # noqa: S311 (weights, not secrets)
    weights = [f"model-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]
    return {
        "config.json": b'{"shards": %d}' % count,
        "tokenizer.json": b"{}",
        **{name: chance.randbytes(100_000 * size) for name in weights},
    }


def _cases(layers: int) -> dict[str, PullCase]:
    one = {"tiny-Q4_K_M.gguf": model_bytes(layers=layers)}
    split = {**shards(2, layers=layers), **projector()}
    cases = (
        PullCase("pull-one", one),
        PullCase("pull-split", split),
        PullCase("pull-update", quants("Q4_K_M", layers=layers, seed=1), one),
        PullCase("pull-update-split", {**shards(2, layers=layers, seed=1), **projector(seed=1)}, split),
        PullCase("pull-update-shard", {**split, **dict([list(shards(2, layers=layers, seed=1).items())[1]])}, split),
        PullCase("pull-checkpoint", _checkpoint(layers, 2), is_checkpoint=True),
        PullCase("pull-update-checkpoint", _checkpoint(layers, 2), _checkpoint(layers, 3), is_checkpoint=True),
    )
    return {case.name: case for case in cases}


SMALL = _cases(1)
"""For single calls: 0.25 MB."""
LARGE = _cases(12)
"""For random times: 2.7 MB."""


class PullArena(Arena):
    """An arena with a hub of its own."""

    def __init__(self, root: Path, hub: LocalHub, home: Path | None = None) -> None:
        super().__init__(root, "", home)
        self.hub = hub

    def environ(self, **extra: str) -> dict[str, str]:
        return super().environ(**{**self.hub.environ, **extra})

    @property
    def place(self) -> Path:
        """Where the repository's files are."""
        return self.home / "models" / OWNER_REPO


class PullSweep:
    """One case, broken again and again; a context manager."""

    def __init__(
        self, case: PullCase, work_dir: Path, workers: int = WORKERS, power: PowerSupply | None = None
    ) -> None:
        self.case = case
        self._power = power
        self._cuts = 0
        self._work_dir = work_dir
        self._workers = 1 if power else workers
        self._arenas: queue.Queue[PullArena] = queue.Queue()
        self._stack = ExitStack()
        self.resumed = 0
        """How often the second pull went on with what the first one had."""

    def __enter__(self) -> Self:
        for number in range(self._workers):
            hub = self._stack.enter_context(LocalHub())
            home = self._power.mount_dir / "home" if self._power else None
            self._arenas.put(PullArena(self._work_dir / f"worker{number}", hub, home))
        self._template = self._made_template()
        with self._arena() as arena:
            arena.hub.bytes_per_s = self._rate
            began = time.monotonic()
            arena.must(*self.case.words)
            self.duration_s = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def _rate(self) -> int:
        return int(self.case.new_bytes / _TRANSFER_S)

    def _made_template(self) -> Path:
        """Return a home that has what was there before."""
        template = self._work_dir / "template"
        with self._arena(is_bare=True) as arena:
            arena.home.mkdir(mode=0o700)
            if self.case.before:
                arena.hub.add(OWNER_REPO, self.case.before)
                arena.must(*self.case.words)
            subprocess.run(["cp", "-a", "--", arena.home, template], check=True)
        return template

    # -- what can be tried ---------------------------------------------------------------------------------------------

    def points(self) -> list[strace.Point]:
        """Return every disk-changing call that the pull makes."""
        with self._arena() as arena:
            return strace.record(arena, self.case.words)

    def kills(self, count: int | None, seed: int) -> Report:
        """Kill the pull at `count` of its points (None: at all); with a power supply, cut the power then."""
        points = self.points()
        chosen = strace.sample(points, count, seed)
        faults = [(str(point), partial(self._killed_at, point=point)) for point in chosen]
        if self._power:
            faults += [("after success", self._succeeded)] * min(len(chosen), 10)
        return self._tried(len(points), faults)

    def errors(self, errno_name: str, count: int | None, seed: int) -> Report:
        """Let `count` of the points (None: all) fail with `errno_name`, once."""
        points = [one for one in self.points() if errno_name != "ENOSPC" or one.call not in strace.CANNOT_FILL_DISK]
        chosen = strace.sample(points, count, seed)
        return self._tried(
            len(points),
            [
                (f"{errno_name} at {point}", partial(self._failed_at, point=point, errno_name=errno_name))
                for point in chosen
            ],
        )

    def random_kills(self, count: int, seed: int) -> Report:
        """Kill the pull at `count` random times."""
        chooser = random.Random(seed)  # noqa: S311 (reproducible, not secret)
        times = [chooser.uniform(0.05, self.duration_s) for _ in range(count)]
        return self._tried(
            count,
            [(f"killed after {after_s:.3f} s", partial(self._killed_after, after_s=after_s)) for after_s in times],
        )

    # -- one fault -----------------------------------------------------------------------------------------------------

    def _killed_at(self, arena: PullArena, point: strace.Point) -> tuple[bool, list[str]]:
        faulted = strace.inject(arena, self.case.words, point, KILL)
        problems = [] if faulted.hit or faulted.ended.status == 0 else [f"without the fault: {faulted.ended}"]
        return faulted.hit is not None, problems + self._consequences(arena, interrupted=faulted.hit is not None)

    def _failed_at(self, arena: PullArena, point: strace.Point, errno_name: str) -> tuple[bool, list[str]]:
        faulted = strace.inject(arena, self.case.words, point, f"error={errno_name}")
        # Bytes come from the network in pieces of any size, so that the call may be another one: that of the answer.
        on_disk = faulted.hit is not None and str(arena.home) in faulted.hit
        problems = []
        if faulted.ended.status != 0 and (on_disk or faulted.hit is None):
            problems = _error_problems(faulted.ended, arena) if on_disk else [f"no fault: {faulted.ended}"]
        return on_disk, problems + self._consequences(arena, interrupted=True)

    def _killed_after(self, arena: PullArena, after_s: float) -> tuple[bool, list[str]]:
        arena.hub.bytes_per_s = self._rate
        child = arena.start(*self.case.words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(after_s)
        child.kill()
        fired = ended(child).status == -9
        arena.hub.bytes_per_s = None
        return fired, self._consequences(arena, interrupted=fired)

    def _succeeded(self, arena: PullArena) -> tuple[bool, list[str]]:
        arena.must(*self.case.words)
        return True, self._consequences(arena, interrupted=False)

    def _consequences(self, arena: PullArena, *, interrupted: bool) -> list[str]:
        if self._power:
            if left := oracle.still_working(arena.home, 20):
                return [f"I5 {left}"]
            self._cuts += 1
            self._power.cut(journal=self._cuts % 2 == 0)
        commits = [self.case.before, self.case.files] if interrupted else [self.case.files]
        problems = [f"after the fault: {line}" for line in self.case.violations(arena, commits)]
        problems += [f"after the fault: {line}" for line in self._listing_problems(arena, commits)]
        had_bytes = sum(path.stat().st_size for path in arena.place.rglob("*.part"))
        asked, again = len(arena.hub.seen("storage")), arena.run(*self.case.words, "--json")
        if again.status != 0:
            return [*problems, f"the same pull again: {again}"]
        if had_bytes and any("Range" in one.headers for one in arena.hub.seen("storage")[asked:]):
            self.resumed += 1
        problems += [
            f"after the repetition: {line}" for line in self.case.violations(arena, [self.case.files], settled=True)
        ]
        problems += [f"after the repetition: {line}" for line in self._settled_listing_problems(arena)]
        if not interrupted and not json.loads(again.stdout)["was_there"]:
            problems.append(f"lost after success: {again.stdout}")
        if not self._power and arena.hub.served.total() > self.case.new_bytes + SLACK_BYTES:
            problems.append(f"{arena.hub.served.total()} bytes came for {self.case.new_bytes}")
        return problems

    def _listing_problems(self, arena: PullArena, commits: Sequence[Files]) -> list[str]:
        """Return what is wrong with what `list` shows: only whole models may be there."""
        listed = arena.run("list", "--json")
        if listed.status != 0:
            return [f"list: {listed}"]
        problems = []
        for model in json.loads(listed.stdout)["models"]:
            paths = [Path(path) for path in model["files"]]
            content = {str(path.relative_to(arena.place)): path.read_bytes() for path in paths}
            whole = [{name for name in commit if not name.startswith("mmproj")} for commit in commits]
            of_one = any(all(commit.get(name) == data for name, data in content.items()) for commit in commits)
            if not of_one or set(content) not in whole:
                problems.append(f"list shows {model['key']}: {sorted(content)}")
        return problems

    def _settled_listing_problems(self, arena: PullArena) -> list[str]:
        """Return what is wrong with what `list` shows once a pull succeeded: the model, whole, and nothing broken."""
        problems = self._listing_problems(arena, [self.case.files])
        listed = json.loads(arena.must("list", "--json").stdout)
        keys = [model["key"] for model in listed["models"]]
        if len(keys) != (0 if self.case.is_checkpoint else 1) or listed["broken"]:
            problems.append(f"list shows {keys}, and as broken {listed['broken']}")
        return problems

    # -- many faults ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _arena(self, *, is_bare: bool = False) -> Iterator[PullArena]:
        """Lend an arena whose home is as the template's, and whose hub has both commits and no memory."""
        arena = self._arenas.get()
        try:
            if not is_bare:
                arena.restore(self._template)
                repo = arena.hub.add(OWNER_REPO, self.case.before)
                repo.commit(self.case.files)
                if self._power:
                    self._power.settle()
            arena.hub.served.clear()
            arena.hub.requests.clear()
            arena.hub.bytes_per_s = None
            yield arena
        finally:
            self._arenas.put(arena)

    def _tried(self, known: int, faults: Sequence[Fault[PullArena]]) -> Report:
        return tried(Report(self.case.name, known_points=known), faults, self._arena, self._workers)


def _error_problems(done: Ended, arena: PullArena) -> list[str]:
    """Return what is wrong with how a pull met one failing call: it may do without, or say so and exit with 10."""
    if done.status != STORAGE_STATUS:
        return [f"not exit {STORAGE_STATUS}: {done}"]
    if str(arena.root) not in done.stderr and str(arena.home) not in done.stderr:
        return [f"the message names no path: {done}"]
    return []
