"""What a staged build decides by itself: where its compiler cache lies, who wins, how it takes its place."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from llama_mgr.build.record import Builds
from llama_mgr.build.source import Source, Sources
from llama_mgr.build.staged import StagedBuild
from llama_mgr.build.toolchain import FoundTool, Toolchain
from llama_mgr.build.tree import DirectoryTree
from llama_mgr.errors import BuildFailedError, BusyError, ChildFailedError, LlamaMgrError
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import CacheSettings, Settings
from tests.tools.build_examples import RESOLVED
from tests.tools.listener import Listener
from tests.tools.shelf_build import plan_of

CCACHE = {"ccache": FoundTool("ccache", Path("/usr/bin/ccache"), "4.8")}


def staged(
    home: Home, environ: Mapping[str, str], settings: CacheSettings, tools: dict[str, FoundTool], **defines: str
) -> StagedBuild:
    sources = Sources(home, environ, SilentReporter(), Settings())
    plan = msgspec.structs.replace(plan_of(1), defines=defines)
    source = Source("git", "https://example.invalid/x", "b1", f"{1:040x}", 1, DirectoryTree(home.root))
    return StagedBuild(
        home, settings, environ, SilentReporter(), sources,
        plan=plan, source=source, resolved=RESOLVED, toolchain=Toolchain(tools=tools), jobs=1,
    )  # fmt: skip


def test_where_the_compiler_cache_lies(home: Home, environ: dict[str, str]) -> None:
    assert staged(home, environ, CacheSettings(), CCACHE).cache_dir == home.ccache_dir
    assert staged(home, environ, CacheSettings(directory="/srv/cache"), CCACHE).cache_dir == Path("/srv/cache")
    assert staged(home, environ, CacheSettings(enabled=False), CCACHE).cache_dir is None
    assert staged(home, environ, CacheSettings(), {}).cache_dir is None


def test_the_users_launcher_wins(home: Home, environ: dict[str, str]) -> None:
    own = {"CMAKE_C_COMPILER_LAUNCHER": "/usr/bin/sccache"}
    configure, _ = staged(home, environ, CacheSettings(), CCACHE, **own).commands()
    assert "-DCMAKE_C_COMPILER_LAUNCHER=/usr/bin/sccache" in configure
    assert "-DCMAKE_CXX_COMPILER_LAUNCHER=/usr/bin/ccache" in configure


class StubbornSources(Sources):
    """Cannot give a work tree back."""

    why: LlamaMgrError

    def check_out(self, source: Source, target: Path) -> None:
        target.mkdir()
        del source

    def release(self, target: Path) -> None:
        assert target.name == "source"
        raise self.why


@pytest.mark.parametrize("why", [BusyError("cannot get the lock", "source-x"), ChildFailedError("cannot run", "git")])
def test_a_failing_clean_up_does_not_hide_the_error(
    home: Home, environ: dict[str, str], why: LlamaMgrError, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    sources = StubbornSources(home, environ, listener, Settings())
    sources.why = why
    work = staged(home, environ, CacheSettings(), {})
    monkeypatch.setattr(work, "_sources", sources)
    monkeypatch.setattr(work, "_reporter", listener)

    def broken(*_: object) -> None:
        raise BuildFailedError("cannot build")

    monkeypatch.setattr(work, "_made_in", broken)
    with pytest.raises(BuildFailedError):
        work.made()
    (warning,) = listener.warnings
    assert warning.endswith(f" stay until the next check-out: {why}")
    assert Builds(home).ids() == []
    assert list(home.staging_dir.iterdir()) == []
