"""What `install --dry-run` shows: the plan, where each value comes from, and every command."""

from typing import TYPE_CHECKING, Any

from llama_mgr.cli.console import Output
from llama_mgr.process import argv_words

if TYPE_CHECKING:
    from llama_mgr.build.builder import Prepared
    from llama_mgr.instances.installation import Installer


def plan_document(installer: "Installer", prepared: "Prepared", parallel: int | None) -> dict[str, Any]:
    """Return the plan as `--json` prints it."""
    plan, resolved = prepared.plan, prepared.resolved
    jobs = installer.builder.jobs(prepared, parallel)
    finished = installer.builder.finished(prepared)
    return {
        "build_id": plan.build_id,
        "digest": plan.digest,
        "exists": finished is not None,
        "version": plan.version,
        "build_number": plan.build_number,
        "commit": plan.commit,
        "source": {"kind": plan.source_kind, "location": plan.location},
        "recipe": plan.recipe,
        "parts": plan.parts,
        "defines": {name: {"value": one.value, "origin": one.origin} for name, one in sorted(resolved.defines.items())},
        "environment": plan.environ,
        "targets": plan.targets,
        "compilers": plan.compilers,
        "host": plan.host,
        "jobs": jobs,
        "missing": [{"name": one.name, "why": one.why, "hint": one.hint} for one in prepared.toolchain.missing],
        "commands": [argv_words(argv) for argv in installer.builder.staged(prepared, jobs).commands()],
    }


def print_plan(output: Output, document: dict[str, Any]) -> None:
    """Print the plan for people."""
    source = document["source"]
    output.line(f"{document['build_id']}", "bold")
    output.line(
        f"source:   {document['version']} ({document['commit'][:12]}) by {source['kind']} from {source['location']}"
    )
    output.line(f"recipe:   {' + '.join([document['recipe'], *document['parts']])}")
    output.line(f"targets:  {', '.join(sorted(document['targets']))}")
    output.line(f"jobs:     {document['jobs']}")
    if document["exists"]:
        output.line("this build exists: an install would compile nothing")
    output.line()
    output.table(
        ("define", "value", "from"),
        [(name, one["value"], one["origin"]) for name, one in document["defines"].items()],
    )
    output.line()
    for name, value in document["environment"].items():
        output.line(f"export {name}={value}")
    for command in document["commands"]:
        output.line(f"$ {command}")
    for missing in document["missing"]:
        output.line(f"missing: {missing['name']}: {missing['why']}", "yellow")
