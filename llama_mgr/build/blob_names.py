"""The names that git gives to files of a build's source: equal names, equal content."""

from collections.abc import Mapping, Sequence

from llama_mgr.build.git_program import GitProgram
from llama_mgr.build.mirror import Mirror
from llama_mgr.build.plan import Plan
from llama_mgr.build.repository import repository
from llama_mgr.errors import LlamaMgrError
from llama_mgr.paths import Home
from llama_mgr.report import Reporter


def blob_names(
    home: Home, plan: Plan, paths: Sequence[str], environ: Mapping[str, str], reporter: Reporter
) -> dict[str, str]:
    """Return the blob of each of the files `paths` in the commit that `plan` builds; those it lacks are left out.

    Trees are read, which a mirror always has, and never contents; no network is used.

    Returns:
        Nothing when the source is a snapshot or a local tree, the mirror does not have the commit, or git fails.
    """
    if plan.source_kind != "git":
        return {}
    try:
        git = GitProgram(environ, {})
        mirror = Mirror(home, repository(plan.location, allow_http=True), git, reporter)
        if mirror.commit_of(plan.commit) is None:
            return {}
        # `GitProgram.run`, behind this, allows no protocol: what is missing stays missing.
        listed = mirror.read("ls-tree", "-z", "--full-tree", plan.commit, "--", *paths)
    except LlamaMgrError:
        return {}
    return dict(_entries(listed.decode("utf-8", "replace")))


def _entries(listed: str) -> list[tuple[str, str]]:
    found = []
    for line in listed.split("\0"):
        facts, _, path = line.partition("\t")
        if path:
            _mode, kind, name = facts.split(" ")
            if kind == "blob":
                found.append((path, name))
    return found
