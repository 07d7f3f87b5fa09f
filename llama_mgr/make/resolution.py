"""Resolution of requirements by uv: exact pins first, relaxed only where they cannot be met, torch as a CPU build."""

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_mgr.errors import ChildFailedError, RemoteError
from llama_mgr.make.requirements import Requirement, Requirements
from llama_mgr.process import Argument, child_environ, run, stream
from llama_mgr.report import Reporter
from llama_mgr.store import storage_errors
from llama_mgr.text import printable, printable_lines

_SHORT_S = 60.0
_ROUNDS = 6
_INHERITED = frozenset(
    {
        "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CACHE_DIR",
        "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES", "UV_OFFLINE", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_KEYRING_PROVIDER",
        "UV_INSECURE_HOST", "UV_LINK_MODE", "NETRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
    }
)  # fmt: skip
_LOGIN_VARIABLE = re.compile(r"UV_INDEX_[A-Z0-9_]+_(?:USERNAME|PASSWORD)")
_NETWORK = re.compile(
    r"error sending request|Failed to fetch|Request failed after|dns error|[Cc]onnection (?:refused|reset)"
    r"|timed out|connectivity is disabled"
)
_TORCH_HINT = "put a CPU wheel of torch into a directory, set UV_FIND_LINKS to that directory, and run it again"
_GPU_BUILD = re.compile(r"\+(?:cu|rocm|xpu)")
_PIN = re.compile(r"[=~]=([0-9][A-Za-z0-9.!+_-]*)")


class Uv:
    """The uv program with the environment that it may see: index settings and proxies, nothing that changes results."""

    def __init__(self, program: Path, environ: Mapping[str, str]) -> None:
        self.program = program
        self.wheel_dirs = _wheel_dirs(environ)
        kept = {name: value for name, value in environ.items() if name in _INHERITED or _LOGIN_VARIABLE.fullmatch(name)}
        if "PIP_INDEX_URL" in environ and not kept.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
            kept["UV_DEFAULT_INDEX"] = environ["PIP_INDEX_URL"]
        if "PIP_CERT" in environ and "SSL_CERT_FILE" not in environ:
            kept["SSL_CERT_FILE"] = environ["PIP_CERT"]
        kept |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
        self.environ = child_environ(environ, **kept)

    def make_environment(self, path: Path, log_file: Path, reporter: Reporter) -> None:
        """Make the empty virtual environment `path` from the running interpreter; it still works after a rename."""
        self.logged(["venv", "--relocatable", "--no-project", "--python", sys.executable, path], log_file, reporter)

    def install(
        self, python: Path, resolved: Path, torch_arguments: Sequence[Argument], log_file: Path, reporter: Reporter
    ) -> None:
        """Install exactly what the file `resolved` lists into the environment of `python`."""
        command = ["pip", "install", "--no-deps", "--no-build", "--python", python, *torch_arguments, "-r", resolved]
        status, tail = self.logged(command, log_file, reporter, check=False)
        if status != 0:
            raise _failure(tail, log_file)

    def installed(self, python: Path) -> list[str]:
        """Return what the environment of `python` holds, as sorted `name==version`."""
        command: list[Argument] = [self.program, "pip", "list", "--format", "json", "--python", python]
        listed = msgspec.json.decode(run(command, environ=self.environ, timeout_s=_SHORT_S).stdout.encode())
        return sorted(f"{item['name']}=={item['version']}" for item in listed)

    def logged(
        self, arguments: Sequence[Argument], log_file: Path, reporter: Reporter, *, check: bool = True
    ) -> tuple[int, str]:
        """Run uv with its output going into `log_file`; return its status and the output."""
        lines: list[str] = []
        with storage_errors("cannot write", log_file):
            log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            log = log_file.open("ab")
        with log, reporter.progress(f"uv {arguments[0]}", None, "steps") as progress:

            def hear(line: str) -> None:
                lines.append(line)
                progress.update(len(lines), None, printable(line, 80))

            status = stream([self.program, *arguments], environ=self.environ, log=log, on_line=hear)
        output = "\n".join(lines)
        if check and status != 0:
            raise _failure(output, log_file)
        return status, output


@dataclass(frozen=True)
class Resolution:
    """What would be installed: `file` lists every package with its exact version."""

    file: Path
    torch_from: str
    torch_arguments: tuple[str, ...]
    relaxed: tuple[str, ...]
    gpu_packages: tuple[str, ...]


def resolve(wanted: Requirements, uv: Uv, work_dir: Path, log_file: Path, reporter: Reporter) -> Resolution:
    """Resolve `wanted` with exact pins, and relax pins one round at a time where uv says that they cannot be met.

    Torch comes from a wheel in a folder that UV_FIND_LINKS or PIP_FIND_LINKS names, else from the CPU index that uv
    knows (`--torch-backend cpu`).

    Raises:
        RemoteError: an index cannot be reached.
        ChildFailedError: there is no solution.
    """
    wheel = _torch_wheel(wanted, uv.wheel_dirs) if "torch" in wanted.names else None
    overrides = {"torch": f"torch @ {wheel.resolve().as_uri()}"} if wheel else {}
    backend = ("--torch-backend", "cpu") if "torch" in wanted.names and wheel is None else ()
    asked, resolved = work_dir / "asked.txt", work_dir / "resolved.txt"
    asked.write_text("".join(f"{item.line}\n" for item in wanted.items))
    for _ in range(_ROUNDS):
        given = work_dir / "overrides.txt"
        given.write_text("".join(f"{line}\n" for line in overrides.values()))
        command = [
            "pip", "compile", "--quiet", "--no-build", "--no-header", "--no-annotate", "--python", sys.executable,
            *backend, "--override", given, "--output-file", resolved, asked,
        ]  # fmt: skip
        resolved.unlink(missing_ok=True)  # uv would prefer the versions it finds there
        status, output = uv.logged(command, log_file, reporter, check=False)
        if status == 0:
            torch_from = "" if "torch" not in wanted.names else "find-links" if wheel else "torch-backend cpu"
            return _resolution(wanted, resolved, torch_from, backend)
        looser = _looser(wanted, overrides, output)
        if not looser:
            raise _failure(output, log_file)
        overrides |= looser
    raise _failure(output, log_file)


def _looser(wanted: Requirements, overrides: Mapping[str, str], output: str) -> dict[str, str]:
    """Return overrides for the requirements that uv blames: first the lower bound of the pin, then any version."""
    if _NETWORK.search(output):
        return {}
    text = re.sub(r"\s+", " ", output)
    blamed = [item for item in wanted.items if re.search(rf"you require {re.escape(item.name)}(?![\w-])", text)]
    found = {item.name: _next_override(item, overrides.get(item.name)) for item in blamed}
    return {name: line for name, line in found.items() if line is not None}


def _next_override(item: Requirement, current: str | None) -> str | None:
    free = f"{item.name}{item.extras}{item.marker}"
    pin = _PIN.fullmatch(item.version)
    bounded = f"{item.name}{item.extras}>={pin[1]}{item.marker}" if pin else free
    if current is None:
        return bounded if item.version else None
    return free if current == bounded != free else None


def _resolution(wanted: Requirements, resolved: Path, torch_from: str, torch_arguments: tuple[str, ...]) -> Resolution:
    versions = dict(filter(None, map(_name_and_version, resolved.read_text().splitlines())))
    relaxed = [
        f"{item.line} -> {item.name}=={versions[item.name]}"
        for item in wanted.items
        if item.name in versions and not _meets(versions[item.name], item.version)
    ]
    gpu_packages = tuple(name for name in versions if name.startswith("nvidia-"))
    return Resolution(resolved, torch_from, torch_arguments, tuple(relaxed), gpu_packages)


def _name_and_version(line: str) -> tuple[str, str] | None:
    pinned = re.match(r"([a-z0-9-]+)==(\S+)", line)
    if pinned:
        return pinned[1], pinned[2]
    wheel = re.match(r"([a-z0-9-]+) @ \S*/[^/-]+-([^/-]+)-[^/]+\.whl", line)
    return (wheel[1], wheel[2].replace("%2B", "+")) if wheel else None


def _meets(version: str, wanted: str) -> bool:
    """Tell whether `version` meets the pin `wanted`; anything but a plain `==` or `~=` pin counts as met."""
    pin = _PIN.fullmatch(wanted)
    if pin is None:
        return True
    public = version.partition("+")[0]
    if wanted.startswith("=="):
        return public == pin[1].partition("+")[0]
    prefix = pin[1].rpartition(".")[0]
    return public.startswith(f"{prefix}.") and _order(public) >= _order(pin[1])


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def _wheel_dirs(environ: Mapping[str, str]) -> list[Path]:
    named = re.split(r",", environ.get("UV_FIND_LINKS", "")) + environ.get("PIP_FIND_LINKS", "").split()
    places = [Path(re.sub(r"^file://", "", place.strip())) for place in named if place.strip()]
    return [place for place in places if place.is_absolute() and place.is_dir()]


def _torch_wheel(wanted: Requirements, wheel_dirs: Sequence[Path]) -> Path | None:
    """Return the CPU wheel of torch for this interpreter and machine: one that meets the pin, else the newest."""
    pin = next(item.version for item in wanted.items if item.name == "torch")
    fitting = [wheel for place in wheel_dirs for wheel in place.glob("torch-*.whl") if _fits(wheel)]
    return max(fitting, key=lambda wheel: (_meets(_version_of(wheel), pin), _order(_version_of(wheel))), default=None)


def _version_of(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def _fits(wheel: Path) -> bool:
    system = "macosx" if sys.platform == "darwin" else "linux"
    *_, python, _, platforms = wheel.stem.split("-")
    return (
        f"cp{sys.version_info.major}{sys.version_info.minor}" in python.split(".")
        and system in platforms
        and platform.machine() in platforms
        and not _GPU_BUILD.search(_version_of(wheel))
    )


def _failure(output: str, log_file: Path) -> ChildFailedError | RemoteError:
    tail = printable_lines(output, 12)
    if _NETWORK.search(output):
        about_torch = "/torch/" in output
        return RemoteError(
            "cannot reach the index of torch's CPU builds" if about_torch else "cannot reach the package index",
            None, tail[-1].strip() if tail else "",
            hint=_TORCH_HINT if about_torch else "check the network, or set UV_DEFAULT_INDEX",
            tail=tail, log_file=log_file,
        )  # fmt: skip
    return ChildFailedError(
        "cannot make the converter's environment", None, "uv found no packages that fit together",
        hint=_TORCH_HINT if "torch" in output else None, tail=tail, log_file=log_file,
    )  # fmt: skip
