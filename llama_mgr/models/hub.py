"""The door to the Hugging Face hub: one file of a repository at a fixed revision, checked against its sha256.

The library knows the hub's addresses; the transfer is ours, because the library neither resumes after a restart nor
checks sha256 while it downloads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llama_mgr.download import Download, HttpClient, Patience
from llama_mgr.errors import RemoteError
from llama_mgr.report import Reporter

ENDPOINT_VARIABLE = "HF_ENDPOINT"
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 (the name of a variable)
_TRUE_WORDS = frozenset({"1", "ON", "YES", "TRUE"})
_HERE = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class HubFile:
    """One file at one moment: `revision` is a commit of 40 hex digits, `sha256` has 64."""

    repo: str
    name: str
    revision: str
    sha256: str
    size_bytes: int

    @property
    def source(self) -> str:
        """Where it comes from, in one line: `hf:owner/repo@revision/name`."""
        return f"hf:{self.repo}@{self.revision}/{self.name}"


class Hub:
    """The hub that HF_ENDPOINT names, or the public one, with the login of HF_TOKEN.

    Args:
        environ: where HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and certificates are looked up.
        reporter: hears of retries and shows downloads.
        patience: how long to try.
    """

    def __init__(self, environ: Mapping[str, str], reporter: Reporter, patience: Patience | None = None) -> None:
        self._environ = environ
        self._reporter = reporter
        self._client = HttpClient(environ, reporter, patience)

    def fetch(self, file: HubFile, target: Path) -> Path:
        """Download `file` to `target`, and return `target`. On disk afterwards: as `HttpClient.fetch`.

        Raises:
            RemoteError: the hub cannot be reached, HF_HUB_OFFLINE is set, or the file is gone.
            RemoteDeniedError: the hub wants a login.
            HashMismatchError: something else arrived, twice.
            StorageError: the disk is full or failing.
        """
        if self._environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE_WORDS:
            raise RemoteError("cannot fetch", file.source, "HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE")
        url = self._url_of(file)
        download = Download(file.name, url, file.sha256, file.size_bytes, self._headers(url))
        return self._client.fetch(download, target)

    def _url_of(self, file: HubFile) -> str:
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 (heavy, and rarely needed)

        endpoint = self._environ.get(ENDPOINT_VARIABLE, "").strip().rstrip("/") or None
        return hf_hub_url(file.repo, file.name, revision=file.revision, endpoint=endpoint)

    def _headers(self, url: str) -> dict[str, str]:
        token = self._environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return {}
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _HERE:
            self._reporter.warn(f"{TOKEN_VARIABLE} is not sent, because {parts.hostname} is reached without encryption")
            return {}
        return {"Authorization": f"Bearer {token}"}
