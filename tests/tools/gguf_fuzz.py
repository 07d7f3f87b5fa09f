"""Damaged GGUF headers by the thousand, and what the reader makes of them.

A header gives a result or a BadGgufError; anything else is a finding, and so is a second spent on one. What is accepted
must be usable: traits are made of it, and put into JSON.
"""

import random
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from llama_mgr.errors import BadGgufError, LlamaMgrError
from llama_mgr.models.gguf import GgufHeader, parse_gguf
from llama_mgr.models.traits import merged, traits_of
from tests.tools.gguf_file import SmallModel, TensorInfo, Typed, gguf_head
from tests.tools.peak_memory import peak_bytes

SLOW_S = 1.0
MEMORY_LIMIT_BYTES = 100 * 1000**2
_NUMBERS = (
    0,
    1,
    3,
    4,
    7,
    8,
    9,
    31,
    77,
    127,
    128,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
)
_KNOWN_TEXTS = (b"\x1b[2J", b"\xff\xfe", b"\n", "\u202e".encode(), b"llama", b"clip", b"GGUF", b"\0" * 8)


@dataclass(frozen=True)
class BytesSource:
    """A file that has `head` and then zeros."""

    head: bytes
    size_bytes: int

    def read(self, offset: int, length: int) -> bytes:
        found = self.head[offset : offset + length]
        return found + bytes(min(length, max(0, self.size_bytes - offset)) - len(found))


@dataclass
class Outcome:
    """What came of it."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts.items()))
        return f"{counts}; slowest {self.slowest_s * 1000:.1f} ms; {len(self.findings)} findings"


def seeds() -> list[bytes]:
    """Return heads of valid files of different kinds, each less than 20 kB."""
    gemma = {"gemma3.attention.sliding_window": 512, "gemma3.attention.sliding_window_pattern": [True, False]}
    hybrid = {"jamba.attention.head_count_kv": [1, 0, 1], "jamba.ssm.conv_kernel": 4, "jamba.ssm.inner_size": 512}
    latent = {f"deepseek2.attention.{key}": 64 for key in ("key_length_mla", "value_length_mla", "key_length")}
    models = [
        (SmallModel(), 3),
        (SmallModel(quant="F16", chat_template=None), 2),
        (SmallModel(split=(0, 3)), 3),
        (SmallModel(architecture="gemma3", layers=2, extra=gemma), 3),
        (SmallModel(architecture="jamba", layers=3, quant="Q8_0", extra=hybrid), 3),
        (SmallModel(architecture="deepseek2", extra={**latent, "general.alignment": 32}), 3),
    ]
    return [*(gguf_head(*model.parts(), version=version) for model, version in models), _projector(), _odd()]


def _projector() -> bytes:
    metadata = {"general.architecture": "clip", "general.type": "mmproj", "clip.has_vision_encoder": True}
    return gguf_head(metadata, [TensorInfo("v.patch_embd.weight", (14, 14, 3, 64), "F16")])


def _odd() -> bytes:
    """Return a file with every kind of value and array."""
    numbers = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
    values = {f"odd.{kind}": Typed(kind, 1) for kind in numbers}
    arrays = {f"odd.{kind}s": Typed("array", (kind, [1, 2, 3])) for kind in numbers}
    rest = {"odd.bools": [True, False], "odd.texts": ["", "a", "ä" * 300], "odd.none": Typed("array", ("string", []))}
    tensors = [TensorInfo("scalar", ()), TensorInfo("four", (32, 2, 2, 2), "Q8_0"), TensorInfo("bf16", (3,), "BF16")]
    return gguf_head({**values, **arrays, **rest}, tensors)


def mutations(heads: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` damaged heads; the same `seed` gives the same ones."""
    chance = random.Random(seed)  # noqa: S311 (damage, not secrets)
    for _ in range(count):
        head = bytearray(chance.choice(heads))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            _damage(head, heads, chance)
        yield bytes(head)


def _damage(head: bytearray, heads: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(chance.choice((24, 64, 512, len(head) + 1))) if head else 0
    match chance.randrange(8):
        case 0:
            head[at : at + 1] = bytes([chance.randrange(256)])
        case 1 | 2:
            head[at : at + 8] = struct.pack("<Q", chance.choice(_NUMBERS))
        case 3:
            head[at : at + 4] = struct.pack("<I", chance.choice(_NUMBERS) & 0xFFFFFFFF)
        case 4:
            del head[at : at + chance.choice((1, 4, 8, 100))]
        case 5:
            other = chance.choice(heads)
            start = chance.randrange(len(other))
            head[at:at] = other[start : start + chance.choice((1, 8, 24, 200))]
        case 6:
            text = chance.choice(_KNOWN_TEXTS)
            head[at : at + len(text)] = text
        case _:
            del head[len(head) - chance.randrange(len(head) + 1) :]


def fuzz(heads: Sequence[bytes], count: int, seed: int) -> Outcome:
    """Read `count` damaged files and say what came of it."""
    outcome, chance = Outcome(), random.Random(seed + 1)  # noqa: S311
    for head in mutations(heads, count, seed):
        read_one(BytesSource(head, len(head) + chance.choice((0, 2_000_000, 2_000_000, 2**40))), outcome)
    return outcome


def read_one(source: BytesSource, outcome: Outcome) -> None:
    started = time.perf_counter()
    try:
        header = parse_gguf(source, "fuzz.gguf")
        _use(header)
        outcome.counts["accepted"] += 1
    except BadGgufError:
        outcome.counts["refused"] += 1
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        outcome.findings.append(f"{error!r} for {source.head[:4000].hex()} of {source.size_bytes}")
    took_s = time.perf_counter() - started
    outcome.slowest_s = max(outcome.slowest_s, took_s)
    if took_s > SLOW_S:
        outcome.findings.append(f"{took_s:.1f} s for {source.head[:4000].hex()} of {source.size_bytes}")


def _use(header: GgufHeader) -> None:
    end = max((tensor.offset + tensor.size_bytes for tensor in header.tensors), default=0)
    assert not header.tensors or header.data_offset + end <= header.size_bytes
    traits = traits_of(header, "fuzz-Q4_K_XL.gguf")
    assert msgspec.json.decode(msgspec.json.encode(traits), type=type(traits)) == traits
    assert all(text is None or text.isprintable() for text in (traits.kind, traits.title, traits.license))
    if traits.kv_cache:
        assert 0 <= traits.kv_cache.size_bytes(4096, 4) < 2**64
    if traits.split:
        try:
            merged([traits])
        except LlamaMgrError:
            return


def memory_findings(limit_bytes: int = MEMORY_LIMIT_BYTES) -> list[str]:
    """Return the complaint that this process has had more memory than it may have, if it has."""
    peak = peak_bytes()
    return [f"{peak / 1000**2:.0f} MB of memory"] if peak > limit_bytes else []


def truncate(whole: bytes, offsets: Sequence[int]) -> Outcome:
    """Cut a valid file at each of `offsets`, all before the end of its last tensor; none may be accepted."""
    outcome = Outcome()
    for offset in offsets:
        before = outcome.counts["accepted"]
        read_one(BytesSource(whole[:offset], offset), outcome)
        if outcome.counts["accepted"] != before:
            outcome.findings.append(f"accepted as whole when cut at {offset} of {len(whole)}")
    return outcome
