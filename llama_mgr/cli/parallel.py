"""The option `--parallel`, which every command has that may compile."""

import click

from llama_mgr.cli.context import Context


def _checked(ctx: click.Context, _: click.Parameter, value: int | None) -> int | None:
    """Refuse a number that no build would take, whether or not anything must be compiled."""
    if value is not None:
        from llama_mgr.build.host import detect_host
        from llama_mgr.build.preflight import check_jobs

        check_jobs(value, detect_host(ctx.ensure_object(Context).environ), "cannot use --parallel")
    return value


parallel_option = click.option(
    "--parallel",
    "-j",
    type=int,
    metavar="N",
    callback=_checked,
    help="Compile jobs at once; default by cores and free memory.",
)
