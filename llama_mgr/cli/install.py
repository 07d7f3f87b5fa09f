"""`llama-mgr install`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.completing import complete_recipes
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.parallel import parallel_option
from llama_mgr.errors import BadInputError, BadNameError
from llama_mgr.names import checked_name
from llama_mgr.text import duration_words, size_words

if TYPE_CHECKING:
    from llama_mgr.build.version import Version
    from llama_mgr.instances.installation import Installer, Outcome
    from llama_mgr.instances.instance import WantedBuild

_USUAL_BRANCHES = frozenset({"master", "main", "dev"})
"""What a word that is also a NAME probably means where nobody knows the repository's branches yet."""


@click.command(
    epilog=examples(
        "llama-mgr install                                  # newest llama.cpp for this machine",
        "llama-mgr install old b11401 --arch cpu",
        "llama-mgr install gpu latest --arch cuda --with rpc -D GGML_CUDA_FA_QUANTS=all",
        "llama-mgr install mine ./llama.cpp --arch vulkan   # a local tree",
    )
)
@click.argument("name", required=False)
@click.argument("version", required=False)
@click.option("--instance", "-i", "instance", metavar="NAME", help="The same as NAME.")
@click.option(
    "--arch", metavar="RECIPE", help="Recipe to build with; `auto` suits this machine.", shell_complete=complete_recipes
)
@click.option("--with", "parts", multiple=True, metavar="PART", help="Also build this part, such as rpc (repeatable).")
@click.option("--cmake-args", multiple=True, metavar="ARGS", help="More defines: '-DA=1 -DB=2' (repeatable).")
@click.option("-D", "--define", "defines", multiple=True, metavar="NAME=VALUE", help="One more define (repeatable).")
@click.option("--targets", metavar="LIST", help="Tools or CMake targets to build, with commas; `all` for everything.")
@parallel_option
@click.option("--repo-url", metavar="URL", help="Another repository: https, ssh or file.")
@click.option("--branch", metavar="NAME", help="The newest commit of this branch.")
@click.option("--source", type=click.Choice(["auto", "git", "snapshot"]), help="Force git or a package-index snapshot.")
@click.option("--allow-http", is_flag=True, help="Allow a repository over unencrypted http.")
@click.option("--pull-only", is_flag=True, help="Only fetch the source.")
@click.option("--update-only", is_flag=True, help="Only if the instance exists already.")
@click.option("--ignore-python", is_flag=True, help="Make no Python environment for the converter.")
@click.option("--from", "manifest", type=click.Path(path_type=Path), help="Take everything from an instance manifest.")
@click.option("--dry-run", is_flag=True, help="Show the plan and every command; build nothing.")
@common_options
@pass_context
def install(context: Context, /, **options: Any) -> None:  # noqa: ANN401 (click hands options by name)
    """Build a llama.cpp and give it the name NAME.

    VERSION is `latest`, `b11434`, `v0.6.0`, a branch, a commit, `pr/123` or the PATH of a local tree. An only argument
    that looks like a version is one; then the name is derived, such as `b11434-cpu`. A branch or PATH needs a NAME
    before it. No plan is ever built twice.
    """
    from llama_mgr.cli.converter import prepare_converter
    from llama_mgr.instances.installation import Installer

    name, wanted = _request(context, options)
    installer = Installer(context.home, context.settings, context.environ, context.reporter)
    if name is not None:
        _check_name(context, installer, name, wanted, is_only_word=_is_only_word(name, options))
    if options["update_only"]:
        _require_existing(installer, name)
    if options["dry_run"]:
        show_plan(context, installer, wanted, options["parallel"])
    elif options["pull_only"]:
        _pull(context, installer, wanted)
    else:
        outcome = installer.install(name, wanted, options["parallel"])
        answer_outcome(context, outcome, prepare_converter(context, outcome.instance))


def _request(context: Context, options: dict[str, Any]) -> "tuple[str | None, WantedBuild]":
    """Return the name, and what to build."""
    import msgspec

    from llama_mgr.instances.instance import WantedBuild
    from llama_mgr.settings import parse_cmake_args, parse_define

    name, version = _name_and_version(options)
    if options["manifest"]:
        from llama_mgr.instances.manifest import read_manifest

        _refuse_beside_manifest(version, options)
        manifest = read_manifest(options["manifest"])
        context.require_usable(*manifest.settings_used(context.settings))
        wanted = manifest.wanted(context.settings)
        python = wanted.python and not options["ignore_python"]
        return name or manifest.name, msgspec.structs.replace(wanted, python=python)
    if not (options["arch"] or options["pull_only"]):
        context.require_usable("default-arch")
    defines = parse_cmake_args(options["cmake_args"]) | dict(parse_define(text) for text in options["defines"])
    wanted = WantedBuild(
        version=version or "latest",
        repo_url=options["repo_url"],
        branch=options["branch"],
        source=options["source"] or "auto",
        recipe=options["arch"] or context.settings.default_arch,
        parts=sorted(set(options["parts"])),
        defines=defines,
        targets=[word.strip() for word in (options["targets"] or "").split(",") if word.strip()],
        allow_http=options["allow_http"],
        python=not options["ignore_python"],
    )
    return name, wanted


def _refuse_beside_manifest(version: str | None, options: dict[str, Any]) -> None:
    """Raise a BadInputError for what the manifest of `--from` says itself."""
    flags = {
        "VERSION": version,
        "--arch": options["arch"],
        "--with": options["parts"],
        "--cmake-args": options["cmake_args"],
        "--define": options["defines"],
        "--targets": options["targets"],
        "--repo-url": options["repo_url"],
        "--branch": options["branch"],
        "--source": options["source"],
        "--allow-http": options["allow_http"],
    }
    given = [flag for flag, value in flags.items() if value]
    if given:
        why = "the manifest alone says what is built"
        raise BadInputError("cannot use with --from", ", ".join(given), why, hint="write it into the manifest")


def _name_and_version(options: dict[str, Any]) -> tuple[str | None, str | None]:
    name, version, flag = options["name"], options["version"], options["instance"]
    if flag is not None and version is not None:
        raise BadInputError("cannot use two names", name, f"--instance says '{flag}'")
    if flag is not None:
        return flag, name
    if version is None and name is not None and _names_a_version(name):
        return None, name
    return name, version


def _names_a_version(word: str) -> bool:
    """Tell whether the only argument is a VERSION; branches and paths count as a NAME, which they may be meant as."""
    version = _version_in(word)
    return version is not None and (version.kind in {"latest", "build", "release", "pull"} or version.may_be_commit)


def _version_in(word: str) -> "Version | None":
    from llama_mgr.build.version import parsed_version
    from llama_mgr.errors import BadVersionError

    try:
        return parsed_version(word)
    except BadVersionError:
        return None


def _is_only_word(name: str, options: dict[str, Any]) -> bool:
    return options["name"] == name and not (options["version"] or options["instance"] or options["manifest"])


def _check_name(
    context: Context, installer: "Installer", name: str, wanted: "WantedBuild", *, is_only_word: bool
) -> None:
    """Refuse what cannot be a NAME; where the only word may be meant as a VERSION, say how to write that."""
    from llama_mgr.process import argv_words

    try:
        checked_name(name, taken=installer.instances.names())
    except BadNameError as error:
        version = _meant_version(name) if is_only_word else None
        if version is not None:
            error.hint = argv_words(["llama-mgr", "install", "NAME", version])
        raise
    if is_only_word and _may_be_branch(installer, name, wanted):
        context.reporter.note(
            f"the name is '{name}', and the version is latest; for the branch write it after a name: {name} {name}"
        )


def _meant_version(word: str) -> str | None:
    """Return the local tree or branch that `word`, which cannot be a NAME, may mean; None if it looks like neither."""
    version = _version_in(word)
    if version is not None and version.kind == "path":
        return word
    if os.path.isdir(word):  # noqa: PTH112 (whatever the word is, this does not raise)
        return f"./{word}"
    return word if version is not None and "/" in word else None


def _may_be_branch(installer: "Installer", name: str, wanted: "WantedBuild") -> bool:
    if name in installer.instances.names() or wanted.branch or wanted.source == "snapshot":
        return False
    known = installer.builder.sources.has_branch(installer.source_of(wanted), name)
    return name in _USUAL_BRANCHES if known is None else known


def _require_existing(installer: "Installer", name: str | None) -> None:
    if name is None:
        raise BadInputError("--update-only needs the NAME of an instance")
    installer.instances.find(name)


def _pull(context: Context, installer: "Installer", wanted: "WantedBuild") -> None:
    source = installer.builder.sources.locate(installer.source_of(wanted))
    document = {
        "version": source.version,
        "commit": source.commit,
        "build_number": source.build_number,
        "from": source.location,
    }
    context.answer(
        document, lambda output: output.line(f"fetched {source.version} ({source.commit[:12]}) from {source.location}")
    )


def show_plan(context: Context, installer: "Installer", wanted: "WantedBuild", parallel: int | None) -> None:
    """Print the plan of `wanted` and every command that an install would run."""
    from llama_mgr.cli.plan_page import plan_document, print_plan

    prepared = installer.prepare(installer.settled(wanted))
    document = plan_document(installer, prepared, parallel)
    context.answer(document, lambda output: print_plan(output, document))


def answer_outcome(context: Context, outcome: "Outcome", environment: str | None) -> None:
    """Print what an install or update did."""
    build = outcome.build
    cached = build.cache_hits + build.cache_misses
    document = {
        "instance": outcome.instance.name,
        "action": outcome.action,
        "build_id": build.build_id,
        "version": build.plan.version,
        "commit": build.plan.commit,
        "build_number": build.plan.build_number,
        "recipe": build.plan.recipe,
        "path": str(context.home.builds_dir / build.build_id),
        "default": outcome.became_default,
        "took_s": round(outcome.took_s, 3),
        "compiler_runs": build.cache_misses if outcome.action == "built" else 0,
        "cache_hits": build.cache_hits if outcome.action == "built" else 0,
        "converter_environment": environment,
    }

    def show(output: Output) -> None:
        words = {
            "built": "installed",
            "reused": "installed (an equal build existed, nothing was compiled)",
            "unchanged": "is already",
        }
        size = size_words(build.size_bytes)
        about = ", ".join((build.plan.version, build.plan.recipe, size, duration_words(outcome.took_s)))
        output.line(f"{outcome.instance.name} {words[outcome.action]}: {about}")
        if outcome.action == "built" and cached:
            rate = 100 * build.cache_hits // cached
            output.line(f"compiler cache: {build.cache_hits} of {cached} objects came from it ({rate} %)")
        if outcome.became_default:
            output.line("it is the default instance now")
        program = build.programs.get("server") or min(build.programs.values())
        output.line(f"next: llama-mgr exec -i {outcome.instance.name} {program} -- --help")

    context.answer(document, show)
