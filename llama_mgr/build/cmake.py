"""CMake as an object: configure a tree, ask what it declares, build targets with live progress."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from llama_mgr.build.failure import LOG_LIMIT_CHARACTERS, diagnose, relevant_lines
from llama_mgr.build.recipe_file import Failure
from llama_mgr.build.reply import CacheEntry, Input, Reply, ask
from llama_mgr.errors import BuildFailedError, ChildFailedError, ConfigureFailedError, UndeclaredDefineError
from llama_mgr.process import argv_words, status_words, stream
from llama_mgr.report import Progress, Reporter
from llama_mgr.text import nearest, printable

# CMake's own words for a variable that came from -D and that nobody declared since.
_UNDECLARED_HELP = "No help, variable specified on the command line."

# Read by llama.cpp in ways that the scan of its CMake files cannot see, in some era: names that are put together
# (GGML_CANN from "GGML_${backend}"), that only files of another era read, or that CMake itself reads.
_KNOWN_UNDECLARED = frozenset(
    {
        "AMDGPU_TARGETS", "BLAS_INCLUDE_DIRS", "BUILD_SHARED_LIBS", "GGML_CANN", "GGML_CCACHE", "GPU_TARGETS",
        "LLAMA_BUILD_COMMIT", "LLAMA_BUILD_NUMBER", "MUSA_ARCHITECTURES", "SOC_TYPE",
    }
)  # fmt: skip
# Renamed upstream at b2533 and b4080, to words that are not close.
_RENAMED = {"CUBLAS": "CUDA", "HIPBLAS": "HIP"}
_INPUT_LIMIT_CHARACTERS = 4 * 1024 * 1024
_OUTPUT_LIMIT_LINES = 50_000

# Our own, so that a user's NINJA_STATUS cannot make progress unreadable.
_NINJA_STATUS = "[%f/%t] "
_STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_COMMENT = re.compile(r"#.*")
_CONDITION = re.compile(r"\b(?:if|elseif|while)\s*\(((?:[^()]|\([^()]*\))*)\)", re.IGNORECASE)


class CMake:
    """One source tree configured into one build directory.

    Args:
        cmake: the program.
        ninja: the program that builds.
        source_dir: the tree; it is not written to (old trees write their build info into it all the same).
        build_dir: made by `configure`.
        environ: the whole environment of the children (see `process.child_environ`).
        log: gets every command line and its full output.
        reporter: gets the progress of `build`.
        label: what is built, for messages: `b11434`.
        failures: known signatures of logs; the first that matches becomes the message of the error.
    """

    def __init__(
        self,
        cmake: Path,
        ninja: Path,
        source_dir: Path,
        build_dir: Path,
        environ: Mapping[str, str],
        log: BinaryIO,
        reporter: Reporter,
        *,
        label: str = "",
        failures: Sequence[Failure] = (),
    ) -> None:
        self._cmake = cmake
        self._ninja = ninja
        self._source_dir = source_dir
        self._build_dir = build_dir
        # Sub-builds (vulkan-shaders-gen) inherit the generator, not CMAKE_MAKE_PROGRAM. Last: it shadows nothing.
        path = f"{environ.get('PATH', os.defpath)}{os.pathsep}{ninja.parent}"
        self._environ = {**environ, "PATH": path, "NINJA_STATUS": _NINJA_STATUS}
        self._log = log
        self._reporter = reporter
        self._label = label or source_dir.name
        self._failures = failures

    def configure_argv(self, defines: Mapping[str, str]) -> list[str]:
        """Return the command line of `configure`. A value is one argument, whatever it holds (`;`, blanks)."""
        # Untyped on purpose: CMake keeps a typed -D as it is, and the tree's declaration leaves no trace in the cache.
        given = [f"-D{_untyped(name)}={value}" for name, value in defines.items()]
        places = ["-S", str(self._source_dir), "-B", str(self._build_dir)]
        return [str(self._cmake), "-G", "Ninja", *places, f"-DCMAKE_MAKE_PROGRAM={self._ninja}", *given]

    def build_argv(self, targets: Sequence[str], jobs: int) -> list[str]:
        """Return the command line of `build`."""
        return [str(self._cmake), "--build", str(self._build_dir), "--parallel", str(jobs), "--target", *targets]

    def configure(self, defines: Mapping[str, str]) -> str:
        """Configure the tree with `defines` and return what CMake said (both streams, in order).

        On disk afterwards: `build_dir` with ninja files and a file API reply.

        Raises:
            ConfigureFailedError: CMake failed; the message tells the cause where it is known.
            MissingToolsError: the program cannot be run.
        """
        ask(self._build_dir)
        output: list[str] = []
        status = self._run(self.configure_argv(defines), output)
        if status != 0:
            raise self._failed(ConfigureFailedError, "cannot configure", status, output)
        return "\n".join(output)

    def build(self, targets: Sequence[str], jobs: int) -> None:
        """Build `targets` (at least one) with `jobs` parallel jobs, showing steps and the current file.

        Raises:
            BuildFailedError: a step failed; its output is the tail, the message tells the cause where it is known.
            MissingToolsError: the program cannot be run.
        """
        output: list[str] = []
        with self._reporter.progress(f"build {self._label}", None, "steps") as progress:
            status = self._run(self.build_argv(targets, jobs), output, progress)
        if status != 0:
            raise self._failed(BuildFailedError, "cannot build", status, output)

    def _run(self, argv: Sequence[str], output: list[str], progress: Progress | None = None) -> int:
        def on_line(line: str) -> None:
            output.append(line)
            if len(output) > _OUTPUT_LIMIT_LINES:
                del output[: _OUTPUT_LIMIT_LINES // 2]
            step = _STEP.match(line) if progress else None
            if progress and step:
                progress.update(int(step[1]), int(step[2]), _step_detail(step[3]))

        self._log.write(f"$ {argv_words(argv)}\n".encode())
        return stream(argv, environ=self._environ, log=self._log, on_line=on_line)

    def _failed(self, kind: type[ChildFailedError], what: str, status: int, output: Sequence[str]) -> ChildFailedError:
        text = "\n".join(output)[-LOG_LIMIT_CHARACTERS:]
        known = diagnose(text, self._failures)
        why = known.cause if known else status_words(status)
        return kind(what, self._label, why, hint=known.fix if known else None, tail=relevant_lines(text))

    # -- what the configured tree says ---------------------------------------------------------------------------------

    def cache(self) -> dict[str, CacheEntry]:
        """Return every variable of the cache that the last `configure` left.

        Raises:
            ConfigureFailedError: the tree is not configured.
        """
        return Reply(self._build_dir).cache()

    def targets(self) -> frozenset[str]:
        """Return the names of all targets of the configured tree.

        Raises:
            ConfigureFailedError: the tree is not configured.
        """
        return Reply(self._build_dir).targets()

    def declared(self) -> frozenset[str]:
        """Return the names of the options that the configured tree declares, CMake's own left out.

        Raises:
            ConfigureFailedError: the tree is not configured.
        """
        return frozenset(
            name
            for name, entry in self.cache().items()
            if entry.type in {"BOOL", "STRING", "PATH", "FILEPATH"}
            and entry.help != _UNDECLARED_HELP
            and not name.startswith("CMAKE_")
        )

    def undeclared(self, defines: Mapping[str, str]) -> list[str]:
        """Return which of `defines` the configured tree neither declares nor reads, in their order.

        CMake's own notice ("Manually-specified variables were not used") is blind to `GGML_*` since b4560, because
        ggml/CMakeLists.txt reads every such variable. Instead, the cache tells which were never declared. Of those, a
        variable counts as known when the tree tests it or expands it (`if (X)`, `${X}`), or when a CMake module or
        package configuration that was loaded names it (`OPENSSL_ROOT_DIR`). Names with CMAKE_ are CMake's.

        Raises:
            ConfigureFailedError: the tree is not configured.
        """
        reply = Reply(self._build_dir)
        cache = reply.cache()
        names = [
            name
            for name in map(_untyped, defines)
            if not name.startswith("CMAKE_")
            and name not in _KNOWN_UNDECLARED
            and name in cache
            and cache[name].type == "UNINITIALIZED"
            and cache[name].help == _UNDECLARED_HELP
        ]
        return _never_read(names, reply.inputs()) if names else []

    def check_declared(self, defines: Mapping[str, str]) -> None:
        """Refuse defines that the configured tree does not know: they would be ignored without a word.

        Raises:
            UndeclaredDefineError: there are such; all are named, with the nearest declared option of each.
            ConfigureFailedError: the tree is not configured.
        """
        unknown = self.undeclared(defines)
        if not unknown:
            return
        declared = self.declared()
        why = f"this llama.cpp ({self._label}) does not know {'it' if len(unknown) == 1 else 'them'}"
        raise UndeclaredDefineError(
            "cannot use the define" if len(unknown) == 1 else "cannot use the defines",
            ", ".join(unknown),
            why,
            hint=_spelling_hint(unknown, declared),
        )


def _untyped(name: str) -> str:
    return name.partition(":")[0]


def _step_detail(description: str) -> str:
    last_word = description.rpartition(" ")[2]
    is_path = "/" in last_word or description.startswith(("Building ", "Linking "))
    return printable(last_word.rpartition("/")[2].removesuffix(".o") if is_path else description, 80)


def _never_read(names: Sequence[str], inputs: Sequence[Input]) -> list[str]:
    unread = list(names)
    for one in inputs:
        if not unread:
            break
        text = _input_text(one.path)
        unread = [name for name in unread if name not in text or not _reads(name, text, of_project=one.of_project)]
    return unread


def _input_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _COMMENT.sub("", file.read(_INPUT_LIMIT_CHARACTERS))
    except OSError:
        return ""


def _reads(name: str, text: str, *, of_project: bool) -> bool:
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    package = name.removesuffix("_ROOT")
    if package != name and re.search(rf"\bfind_package\s*\(\s*{re.escape(package)}\b", text, re.IGNORECASE):
        return True
    if not of_project:
        return bool(word.search(text))
    # A bare mention is not enough there: llama_option_depr(WARNING LLAMA_CURL) only says that it is ignored.
    if re.search(rf"\$\{{{re.escape(name)}\}}", text):
        return True
    return any(word.search(condition[1]) for condition in _CONDITION.finditer(text))


def _spelling_hint(unknown: Sequence[str], declared: frozenset[str]) -> str | None:
    close = [(name, option) for name in unknown if (option := _nearest_option(name, declared))]
    if not close:
        return None
    if len(unknown) == 1:
        return f"did you mean '{close[0][1]}'?"
    pairs = [f"'{option}' for '{name}'" for name, option in close]
    return f"did you mean {', '.join(pairs)}?"


def _nearest_option(name: str, declared: frozenset[str]) -> str | None:
    # Compared without prefix: b3236 renamed the backends' options from LLAMA_ to GGML_, and the rest tells them apart.
    prefix, rest = _split_option(name)
    by_rest: dict[str, str] = {}
    for option in sorted(declared, key=lambda one: not one.startswith(prefix)):
        by_rest.setdefault(_split_option(option)[1], option)
    rest = _RENAMED.get(rest, rest)
    close = rest if rest in by_rest else nearest(rest, by_rest)
    return by_rest[close] if close else None


def _split_option(name: str) -> tuple[str, str]:
    prefix = next((one for one in ("GGML_", "LLAMA_") if name.startswith(one)), "")
    return prefix, name.removeprefix(prefix)
