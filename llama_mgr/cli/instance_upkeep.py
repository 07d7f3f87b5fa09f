"""`llama-mgr instance gc` and `repair`."""

from typing import TYPE_CHECKING

import click

from llama_mgr.cli.completing import complete_instances
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.parallel import parallel_option
from llama_mgr.errors import BadInputError, CorruptStateError
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from llama_mgr.instances.garbage import Garbage
    from llama_mgr.instances.health import Problem


@click.command(
    epilog=examples(
        "llama-mgr instance gc --dry-run",
        "llama-mgr instance gc",
        "llama-mgr instance gc --keep 1       # no way back with rollback, but the most room",
        "llama-mgr instance gc gpu --keep 2   # only gpu forgets its older builds",
    )
)
@click.argument("name", required=False, shell_complete=complete_instances)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Forget the generations of each instance, or of NAME, beyond the newest N; at least the current one stays.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@common_options
@pass_context
def gc(context: Context, name: str | None, keep: int | None, dry_run: bool) -> None:
    """Remove builds that nothing needs, and leftovers.

    Builds of instances and of running programs are needed; leftovers are what killed commands left behind.
    Nothing that a running command works on is touched. NAME is whose history --keep shortens; without it, --keep
    shortens that of every instance.
    """
    import dataclasses
    from functools import partial

    from llama_mgr.cli.running import running_builds
    from llama_mgr.instances.garbage import Collector
    from llama_mgr.instances.installation import Installer

    if name is not None and keep is None:
        why = "without --keep no instance forgets anything"
        raise BadInputError("cannot collect only for", name, why, hint="llama-mgr instance gc")
    installer = Installer(context.home, context.settings, context.environ, context.reporter)
    running = partial(running_builds, context.home)
    collector = Collector(context.home, installer, running, context.reporter, dry_run=dry_run)
    garbage = collector.collect(keep, name)
    _remove_environments(context, garbage, dry_run=dry_run)
    context.answer(
        {"dry_run": dry_run, **dataclasses.asdict(garbage)}, lambda output: _print(output, garbage, dry_run=dry_run)
    )


@click.command(
    epilog=examples(
        "llama-mgr instance repair gpu --check   # hash every file; status 5 if something is damaged",
        "llama-mgr instance repair gpu",
    )
)
@click.argument("name", shell_complete=complete_instances)
@click.option("--check", is_flag=True, help="Change nothing; end with status 5 if something is damaged.")
@parallel_option
@common_options
@pass_context
def repair(context: Context, name: str, check: bool, parallel: int | None) -> None:
    """Check every file of an instance, and mend what is damaged.

    The same goes for its earlier builds, to which `rollback` returns. Each is built again from its commit; the damaged
    build stays until the new one is finished. The link `current` is put right, and a missing Python environment of the
    converter is made, unless the instance was made with --ignore-python. What cannot be mended does not keep the rest
    from being mended.
    """
    from functools import partial

    from llama_mgr.cli.converter import missing_environment, repair_environment
    from llama_mgr.cli.running import running_builds
    from llama_mgr.instances.installation import Installer
    from llama_mgr.instances.repair import damage
    from llama_mgr.instances.repair import repair as repaired

    installer = Installer(context.home, context.settings, context.environ, context.reporter)
    if check:
        found = damage(installer, name).first
        if found is not None:
            raise found
        _answer_whole(context, name, missing_environment(context, installer.instances.find(name)))
        return
    running, after = partial(running_builds, context.home), partial(repair_environment, context)
    done = repaired(installer, name, running, context.reporter, parallel, after)
    context.answer(
        {"instance": name, "done": done},
        lambda output: output.line(f"{name}: {'; '.join(done) if done else 'nothing was damaged'}"),
    )


def _answer_whole(context: Context, name: str, missing: "Problem | None") -> None:
    """Say that nothing is damaged, and the remark about an environment that can be made."""
    document = {"instance": name, "damaged": False, "remark": missing and missing.what}

    def show(output: Output) -> None:
        output.line(f"{name} is whole")
        if missing is not None:
            output.line(f"{missing.what}; `{missing.mend}` makes it")

    context.answer(document, show)


def _remove_environments(context: Context, garbage: "Garbage", *, dry_run: bool) -> None:
    from functools import partial

    from llama_mgr.build.record import Builds
    from llama_mgr.cli.converter import environments_of
    from llama_mgr.instances.garbage import tree_size_bytes
    from llama_mgr.make.python_env import digests_in_use

    builds, environments = Builds(context.home), environments_of(context)
    try:
        for path in environments.unused(digests_in_use(builds, without=garbage.builds)):
            size_bytes = tree_size_bytes(path)
            if dry_run or environments.discard_unused(path, partial(digests_in_use, builds)):
                garbage.environments.append(path.name)
                garbage.freed_bytes += size_bytes
    except CorruptStateError as error:
        context.reporter.warn(f"converter environments stay: {error.message}")


def _print(output: Output, garbage: "Garbage", *, dry_run: bool) -> None:
    groups = [
        ("builds", garbage.builds),
        ("stays", [f"{build_id}: {why}" for build_id, why in garbage.kept.items()]),
        ("generations", [f"{name}: {', '.join(ids)}" for name, ids in garbage.generations.items()]),
        ("unfinished work", garbage.staging),
        ("instance directories", garbage.instance_dirs),
        ("converter environments", garbage.environments),
    ]
    for title, names in groups:
        for name in names:
            output.line(f"{title}: {name}")
    verb = "would free" if dry_run else "freed"
    output.line(f"{verb} {size_words(garbage.freed_bytes)}")
