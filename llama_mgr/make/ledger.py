"""The quant ledger: what was measured of models, kept by their content, whatever becomes of files and index."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from llama_mgr.errors import CorruptStateError, NewerStateError, NotFoundError, StorageError
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter
from llama_mgr.store import read_document, write_document

_KIND = "evaluation"


class Evaluation(msgspec.Struct, kw_only=True, frozen=True):
    """What one build measured of one model over one text. What was not measured is None."""

    model_sha256: str
    """Of the only file; of a split model, over the sha256 of all its shards."""
    model: str
    """What it was called then."""
    quant: str
    architecture: str
    size_bytes: int
    bits_per_weight: float
    build_id: str
    build_digest: str
    text_sha256: str
    text: str
    context_tokens: int
    chunks: int
    """At most so many of the text; 0 is all of it."""
    base_sha256: str = ""
    """Of the model that the divergence is from; its own for that model itself."""
    base: str = ""
    perplexity: float | None = None
    perplexity_error: float | None = None
    """One standard deviation, as all `_error`s."""
    kld: float | None = None
    """Mean Kullback-Leibler divergence of the next-token distributions from the base's, in nats."""
    kld_error: float | None = None
    kld_99: float | None = None
    """99 % of all tokens have less."""
    kld_max: float | None = None
    same_top: float | None = None
    """Share of the tokens for which both think the same token the likeliest, 0 to 1."""
    same_top_error: float | None = None
    delta_p_rms: float | None = None
    """Root mean square of the change of the right token's probability, 0 to 1."""
    threads: int | None = None
    """That were asked for the speed; 0 left it to the program, None is not known."""
    gpu_layers: int | None = None
    """That were asked for the speed; None left it to the program."""
    prompt_tokens_per_s: float | None = None
    generation_tokens_per_s: float | None = None
    peak_bytes: int | None = None
    """The most memory that the speed test had, mapped weights among it."""
    devices: str = ""
    measured_at: str

    @property
    def key(self) -> str:
        """What tells it from other measurements of the same model."""
        facts = (self.build_digest, self.text_sha256, self.context_tokens, self.chunks, self.base_sha256)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def model_sha256(sha256s: Sequence[str]) -> str:
    """Return the identity of a model from the sha256 of its files in order."""
    return sha256s[0] if len(sha256s) == 1 else hashlib.sha256("\n".join(sha256s).encode()).hexdigest()


class Ledger:
    """All measurements of a home: `ledger/<model>/<build>-<key>.json`.

    Args:
        home: whose.
        reporter: hears of documents that cannot be read; they count as not there.
    """

    def __init__(self, home: Home, reporter: Reporter) -> None:
        self._home = home
        self._reporter = reporter

    def entries(self, sha256: str | None = None) -> list[Evaluation]:
        """Return all measurements, or those of one model; newest first."""
        pattern = f"{sha256[:32]}/*.json" if sha256 else "*/*.json"
        found = [one for file in sorted(self._home.ledger_dir.glob(pattern)) for one in self._read(file)]
        return sorted(found, key=lambda one: one.measured_at, reverse=True)

    def find(self, wanted: Evaluation) -> Evaluation | None:
        """Return the measurement of the same model, build, text and base as `wanted`; None when there is none."""
        return next(self._read(self._file(wanted)), None)

    def write(self, one: Evaluation) -> None:
        """Keep a measurement, in the place of an older one of the same.

        Raises:
            StorageError: the disk is full or failing.
        """
        write_document(self._file(one), _KIND, one)

    def _file(self, one: Evaluation) -> Path:
        return join_below(self._home.ledger_dir, one.model_sha256[:32], f"{one.build_id}-{one.key}.json")

    def _read(self, file: Path) -> Iterator[Evaluation]:
        try:
            yield read_document(file, _KIND, Evaluation)
        except NotFoundError:
            return
        except (CorruptStateError, NewerStateError, StorageError) as error:
            self._reporter.warn(error.message)
