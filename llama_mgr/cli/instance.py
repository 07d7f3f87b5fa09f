"""`llama-mgr instance …`: what the names stand for, now and before."""

from pathlib import Path

import click

from llama_mgr.cli.completing import complete_instances
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.instance_files import lock, sync
from llama_mgr.cli.instance_upkeep import gc, repair

BUSY_TIMEOUT_S = 2.0
"""Commands that take no time do not wait for somebody's build: they say who is busy."""


@click.group()
def instance() -> None:
    """List, compare, switch and clean up instances."""


instance.add_command(lock)
instance.add_command(sync)
instance.add_command(gc)
instance.add_command(repair)


@instance.command("list", epilog=examples("llama-mgr instance list", "llama-mgr instance list --json"))
@common_options
@pass_context
def list_instances(context: Context) -> None:
    """Show all instances.

    What each is, its size, and how far it can be rolled back.
    """
    from llama_mgr.cli.instance_page import LIST_COLUMNS, instance_rows, list_row

    rows = instance_rows(context.home)
    for row in rows:
        if row["damage"]:
            context.reporter.warn(f"{row['damage']}; see `llama-mgr doctor`")

    def show(output: Output) -> None:
        if not rows:
            output.line("there is no instance yet; make one with `llama-mgr install`")
            return
        output.table(LIST_COLUMNS, [list_row(row) for row in rows])

    context.answer({"instances": rows}, show)


@instance.command(epilog=examples("llama-mgr instance show gpu", "llama-mgr instance show   # the one used here"))
@click.argument("name", required=False, shell_complete=complete_instances)
@common_options
@pass_context
def show(context: Context, name: str | None) -> None:
    """Show an instance: its build, what it can do, its history."""
    from llama_mgr.cli.instance_page import instance_document, print_instance
    from llama_mgr.instances.choice import choose
    from llama_mgr.instances.instance import Instances

    found = (
        Instances(context.home).find(name) if name else choose(context.home, None, context.environ, Path.cwd()).instance
    )
    document = instance_document(context.home, found)
    context.answer(document, lambda output: print_instance(output, document))


@instance.command(
    epilog=examples(
        "llama-mgr instance which                         # which one is used here, and why",
        "llama-mgr instance which --path                  # only its directory",
        "llama-mgr instance which llama-server --path     # only the path of a program",
    )
)
@click.argument("program", required=False)
@click.option("--instance", "-i", "name", metavar="NAME", help="This instance.", shell_complete=complete_instances)
@click.option("--path", "only_path", is_flag=True, help="Print only the path of PROGRAM, or of the whole build.")
@common_options
@pass_context
def which(context: Context, program: str | None, name: str | None, only_path: bool) -> None:
    """Say which instance is used here, and why.

    The order is: -i, LLAMA_MGR_INSTANCE, the nearest llama-mgr.toml, the default (`llama-mgr use`), the only one.
    """
    from llama_mgr.instances.choice import choose
    from llama_mgr.instances.instance import Instances

    choice = choose(context.home, name, context.environ, Path.cwd())
    instances = Instances(context.home)
    path = instances.program(choice.instance, program) if program else instances.prefix(choice.instance)

    def say(output: Output) -> None:
        if only_path:
            output.raw(str(path))
        else:
            output.line(f"{choice.instance.name}: {choice.why}")
            output.line(str(path))

    context.answer({"instance": choice.instance.name, "why": choice.why, "path": str(path)}, say)


@instance.command(epilog=examples("llama-mgr instance rollback gpu", "llama-mgr instance rollback gpu   # undo it"))
@click.argument("name", shell_complete=complete_instances)
@common_options
@pass_context
def rollback(context: Context, name: str) -> None:
    """Return an instance to its previous build, at once.

    What it was becomes the previous build, so that a second rollback undoes the first.
    """
    from llama_mgr.instances.instance import Instances

    instances = Instances(context.home)
    with instances.locked(name, f"roll {name} back", context.reporter, BUSY_TIMEOUT_S):
        rolled = instances.roll_back(name)
    now, before = rolled.generations[:2]
    document = {
        "instance": name,
        "from": {"build_id": before.build_id, "version": before.version, "commit": before.commit},
        "to": {"build_id": now.build_id, "version": now.version, "commit": now.commit},
    }
    context.answer(
        document,
        lambda output: output.line(f"{name}: {before.version} ({before.build_id}) -> {now.version} ({now.build_id})"),
    )


@instance.command(
    epilog=examples("llama-mgr instance link mine ~/llama.cpp/build", "llama-mgr uninstall mine   # that build stays")
)
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@common_options
@pass_context
def link(context: Context, name: str, path: Path) -> None:
    """Give a name to a llama.cpp that you built yourself.

    PATH is the directory that holds llama-server, or whose bin/ does. It is never changed or deleted, so it must not
    lie in the home of llama-mgr.
    """
    from llama_mgr.instances.choice import offer_default
    from llama_mgr.instances.instance import Instances

    instances = Instances(context.home)
    with instances.locked(name, f"link {name}", context.reporter, BUSY_TIMEOUT_S):
        linked = instances.link(name, path)
        became_default = offer_default(context.home, name, context.reporter)

    def say(output: Output) -> None:
        output.line(f"{name} is linked to {linked.linked}")
        if became_default:
            output.line("it is the default instance now")

    context.answer({"instance": name, "linked": linked.linked, "default": became_default}, say)
