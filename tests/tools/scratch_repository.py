"""A repository to play with, and a user's git configuration."""

from pathlib import Path

from tests.tools.tiny_repository import run_git


def git_config(environ: dict[str, str], *lines: str) -> None:
    Path(environ["HOME"], ".gitconfig").write_text("\n".join(lines) + "\n")


class Scratch:
    """A work tree of a small repository that a test may do anything with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seconds = 1_700_000_000
        run_git("init", "--quiet", "--initial-branch=master", str(directory))
        self.url = directory.as_uri()

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")
        return run_git(*identity, *words, cwd=self.directory)

    def commit(self, *tags: str, file: str = "CMakeLists.txt") -> str:
        self.seconds += 60
        with (self.directory / file).open("a") as text:
            text.write(f"# {self.seconds}\n")
        self.git("add", "--all")
        self.git("-c", "core.hooksPath=/dev/null", "commit", "--quiet", "-m", "x", f"--date={self.seconds} +0000")
        for tag in tags:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")
