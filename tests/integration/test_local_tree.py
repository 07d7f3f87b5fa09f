"""Trees of the user's own: what they are, and what of them is copied."""

from pathlib import Path

import pytest

from llama_mgr.build.source import Source, Sources, Wanted
from llama_mgr.errors import (
    IncompleteSourceError,
    IntegrityError,
    NotFoundError,
)
from llama_mgr.paths import Home
from tests.tools.scratch_repository import Scratch
from tests.tools.tiny_repository import TinyRepository, run_git


def local(sources: Sources, directory: Path) -> Source:
    return sources.locate(Wanted(str(directory)))


def test_a_clean_work_tree_is_its_commit(sources: Sources, scratch: Scratch) -> None:
    commit = scratch.commit("b11434")

    source = local(sources, scratch.directory)

    assert (source.kind, source.commit, source.build_number) == ("path", commit, 11434)
    assert (source.version, source.location) == ("local-scratch", str(scratch.directory))
    assert source.tree.has("CMakeLists.txt")


def test_every_edit_gives_another_identity(sources: Sources, scratch: Scratch) -> None:
    scratch.commit()
    seen = [local(sources, scratch.directory).commit]
    file = scratch.directory / "CMakeLists.txt"
    for edit in (
        lambda: file.write_text("project(a)"),
        lambda: file.write_text("project(b)"),
        lambda: file.chmod(0o755),
        lambda: (scratch.directory / "untracked.c").write_text("int x;"),
        lambda: (scratch.directory / "untracked.c").rename(scratch.directory / "renamed.c"),
    ):
        edit()
        seen.append(local(sources, scratch.directory).commit)

    assert len(set(seen)) == len(seen) == 6
    assert all(commit.startswith("tree:") for commit in seen[1:])
    assert local(sources, scratch.directory).commit == seen[-1]
    scratch.git("add", "--all")
    assert local(sources, scratch.directory).commit == seen[-1]


def test_a_copy_has_what_a_build_needs_and_no_more(sources: Sources, scratch: Scratch, home: Home) -> None:
    (scratch.directory / ".gitignore").write_text("/build*\n*.gguf\n")
    scratch.commit()
    (scratch.directory / "new.c").write_text("int x;")
    (scratch.directory / "model.gguf").write_bytes(b"GGUF")
    (scratch.directory / "build").mkdir()
    (scratch.directory / "build" / "CMakeCache.txt").touch()
    before = {path: path.lstat().st_mtime_ns for path in scratch.directory.rglob("*")}
    source = local(sources, scratch.directory)

    sources.check_out(source, home.staging_dir / "x" / "source")

    copied = sorted(path.name for path in (home.staging_dir / "x" / "source").iterdir())
    assert copied == [".gitignore", "CMakeLists.txt", "new.c"]
    assert {path: path.lstat().st_mtime_ns for path in scratch.directory.rglob("*")} == before
    sources.release(home.staging_dir / "x" / "source")
    assert not (home.staging_dir / "x" / "source").exists()


def test_a_plain_directory_is_its_content(sources: Sources, tmp_path: Path, home: Home) -> None:
    plain = tmp_path / "My Tree"
    (plain / "src" / "build-x").mkdir(parents=True)
    (plain / "CMakeLists.txt").write_text("project(x)")
    (plain / "src" / "a.c").write_text("int a;")
    (plain / "src" / "link.c").symlink_to("a.c")
    first = local(sources, plain)
    (plain / "src" / "build-x" / "CMakeCache.txt").touch()
    (plain / "src" / "build-x" / "a.o").touch()
    second = local(sources, plain)

    sources.check_out(second, home.staging_dir / "source")

    assert first.commit == second.commit
    assert second.commit.startswith("tree:")
    assert (second.version, second.build_number) == ("local-my-tree", 0)
    assert (home.staging_dir / "source" / "src" / "link.c").readlink() == Path("a.c")
    assert not (home.staging_dir / "source" / "src" / "build-x").exists()


def test_a_tree_inside_another_repository_is_not_that_repositorys_commit(sources: Sources, scratch: Scratch) -> None:
    vendored = scratch.directory / "vendor" / "llama.cpp"
    vendored.mkdir(parents=True)
    (vendored / "CMakeLists.txt").write_text("project(x)")
    scratch.commit("b11434")

    source = local(sources, vendored)

    assert source.commit.startswith("tree:")
    assert source.build_number == 0


def test_a_shallow_clone_does_not_pretend_to_know_its_number(
    sources: Sources, tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    run_git("clone", "--quiet", "--depth=1", "--branch=feature-x", "--", tiny_repository.url, str(tmp_path / "shallow"))

    assert local(sources, tmp_path / "shallow").build_number == 0


def test_a_tree_that_changes_before_it_is_copied_is_not_built(sources: Sources, scratch: Scratch, home: Home) -> None:
    scratch.commit()
    source = local(sources, scratch.directory)
    (scratch.directory / "CMakeLists.txt").write_text("project(changed)")

    with pytest.raises(IntegrityError, match="changed"):
        sources.check_out(source, home.staging_dir / "source")


def test_what_is_no_source_tree_is_refused(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        local(sources, tmp_path / "none")
    with pytest.raises(IncompleteSourceError, match=r"no CMakeLists\.txt"):
        local(sources, tmp_path)
