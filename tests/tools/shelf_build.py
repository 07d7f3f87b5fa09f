"""Builds that need no compiler: whole and recorded like real ones, but their only program is a shell script."""

from collections.abc import Callable
from pathlib import Path

from llama_mgr import staging, store
from llama_mgr.build.builder import Builder, Prepared
from llama_mgr.build.capability import Capabilities
from llama_mgr.build.plan import Plan
from llama_mgr.build.record import RECORD_NAME, BuildRecord, Builds, recorded_files
from llama_mgr.paths import Home

MakeBuild = Callable[..., BuildRecord]


def plan_of(number: int = 1, recipe: str = "cpu", **changes: str) -> Plan:
    """A plan of the build `b<number>`."""
    return Plan(
        version=changes.get("version", f"b{number}"),
        build_number=number,
        commit=changes.get("commit", f"{number:040x}"),
        source_kind="git",
        location="https://example.invalid/llama.cpp",
        recipe=recipe,
        parts=[],
        defines={},
        environ={},
        targets={"server": ["llama-server"]},
        omit=[],
        patch_build_info=None,
        compilers={},
        host={"os": "linux", "machine": "x86_64"},
    )


def publish_build(home: Home, plan: Plan, requirements: str | None = None) -> BuildRecord:
    """Publish a build of `plan` whose only program is a shell script that says its number.

    With the text of a `requirements` file, it has a converter, too.
    """
    with staging.staging(home, "test") as staged:
        prefix = staged / "prefix"
        (prefix / "bin").mkdir(parents=True)
        program = prefix / "bin" / "llama-server"
        program.write_text(f"#!/bin/sh\necho version: {plan.build_number}\n")
        program.chmod(0o755)
        if requirements is not None:
            (prefix / "convert").mkdir()
            (prefix / "convert" / "convert_hf_to_gguf.py").touch()
            (prefix / "convert" / "requirements.txt").write_text(requirements)
        staging.mark(prefix, of=plan.build_id)
        record = BuildRecord(
            build_id=plan.build_id,
            digest=plan.digest,
            plan=plan,
            made_at=store.now_at(),
            took_s=0.0,
            configure_argv=[],
            tools={},
            cache_hits=0,
            cache_misses=0,
            programs={"server": "llama-server"},
            converter=None if requirements is None else "convert_hf_to_gguf.py",
            converter_requirements=None if requirements is None else "requirements.txt",
            capabilities=Capabilities(),
            files=recorded_files(prefix),
        )
        store.write_document(prefix / RECORD_NAME, "build", record)
        final = Builds(home).directory(plan.build_id)
        with staging.out_of_the_way(home, final, of=plan.build_id):
            store.publish(prefix, final)
    return record


class ShelfBuilder(Builder):
    """The real builder, but what it builds comes from the shelf: no compiler runs."""

    home: Home
    built: list[str]
    fail: LookupError | Exception | None = None

    def build(
        self, prepared: Prepared, parallel: int | None = None, *, by_hash: bool = False
    ) -> tuple[BuildRecord, bool]:
        del parallel
        found = self.finished(prepared, by_hash=by_hash)
        if found is not None:
            return found, False
        if self.fail is not None:
            raise self.fail
        self.built.append(prepared.plan.version)
        return publish_build(self.home, prepared.plan), True


def program_of(home: Home, build_id: str) -> Path:
    """The one program of a build."""
    return Builds(home).directory(build_id) / "bin" / "llama-server"
