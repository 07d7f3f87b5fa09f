"""What `doctor` prints."""

from collections.abc import Mapping
from typing import Any

from llama_mgr.cli.console import Output
from llama_mgr.text import printable, size_words


def print_findings(output: Output, document: Mapping[str, Any]) -> None:
    """Print the findings of `doctor` for people: the machine, what it can build, then what is wrong."""
    _print_machine(output, document)
    output.line()
    output.table(
        ("tool", "version", "path"),
        [(one["name"], one["version"], one["path"] or "missing") for one in document["tools"]],
    )
    output.line()
    output.table(("recipe", "ready", "to use it"), [_recipe_cells(recipe) for recipe in document["recipes"]])
    output.line(f"--arch auto chooses '{document['auto']['recipe']}': {document['auto']['why']}")
    for lock in document["locks"]:
        output.line(f"busy: {lock['name']}: {lock['holder']}")
    output.line()
    _print_problems(output, document["problems"])


def _print_machine(output: Output, document: Mapping[str, Any]) -> None:
    host = document["host"]
    output.line(f"machine:  {host['os']} {host['machine']}, {printable(host['cpu_model'])}, {host['cores']} cores")
    output.line(f"memory:   {size_words(host['free_memory_bytes'])} free of {size_words(host['memory_bytes'])}")
    output.line(f"disk:     {size_words(document['free_disk_bytes'])} free for {printable(document['home'])}")
    for gpu in document["gpus"]:
        output.line(f"GPU:      {gpu['name']}{'' if gpu['ready'] else ' (its driver is missing)'}")
    if not document["gpus"]:
        output.line("GPU:      none found")


def _recipe_cells(recipe: Mapping[str, Any]) -> tuple[str, str, str]:
    if recipe["ready"]:
        return recipe["name"], "yes", ""
    missing = ", ".join(one["name"] for one in recipe["missing"])
    return recipe["name"], "no", recipe["install"] or f"missing: {missing}"


def _print_problems(output: Output, problems: list[dict[str, Any]]) -> None:
    if not problems:
        output.line("nothing is wrong", "green")
    for problem in problems:
        kind = "problem" if problem["is_damage"] else "remark"
        output.line(f"{kind}: {problem['what']}", "yellow")
        output.line(f"  where: {printable(problem['where'], 4000)}")
        output.line(f"  mend:  {printable(problem['mend'], 4000)}")
