"""Whether the shards of a split model belong together, by what llama.cpp checks when it loads them.

The keys are written by tools/gguf-split of llama.cpp and checked in src/llama-model-loader.cpp.
"""

from collections.abc import Iterator, Sequence

from llama_mgr.errors import IncompleteModelError
from llama_mgr.models.gguf import GgufHeader
from llama_mgr.text import printable

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


def require_shard(model: str, file: str, number: int, count: int, header: GgufHeader) -> None:
    """Refuse a file that does not say of itself that it is shard `number` (from 1) of `count`; 1 of 1 is a whole model.

    Raises:
        IncompleteModelError: it is another shard, or one of another number of them.
    """
    found_count, found_number = _number(header, _COUNT), _number(header, _NUMBER)
    if count == 1 and found_count in {None, 0, 1}:
        return
    shard = _called(file, number, count)
    if found_count != count:
        of = "is no shard at all" if found_count is None else f"is one of {found_count} shards"
        raise _refusal(model, f"{shard} {of} by its header")
    if found_number != number - 1:
        says = "says no number" if found_number is None else f"is number {found_number + 1}"
        raise _refusal(model, f"{shard} {says} by its header")


def require_one_model(model: str, files: Sequence[str], headers: Sequence[GgufHeader]) -> None:
    """Refuse files that are not all the shards of one model, in order.

    Raises:
        IncompleteModelError: a shard is another one than its place says, tensors are missing, or one is there twice.
    """
    for number, (file, header) in enumerate(zip(files, headers, strict=True), 1):
        require_shard(model, file, number, len(files), header)
    if len(files) > 1:
        for complaint in _complaints(files, headers):
            raise _refusal(model, complaint)


def _complaints(files: Sequence[str], headers: Sequence[GgufHeader]) -> Iterator[str]:
    total = _number(headers[0], _TENSORS)
    seen: dict[str, str] = {}
    for number, (file, header) in enumerate(zip(files, headers, strict=True), 1):
        shard = _called(file, number, len(files))
        if _number(header, _TENSORS) != total:
            yield f"{shard} belongs to another model than shard 1 by its header"
        for tensor in header.tensors:
            if tensor.name in seen:
                yield f"{shard} repeats the tensor {printable(tensor.name, 80)} of {seen[tensor.name]}"
            seen[tensor.name] = f"shard {number}"
    if len(seen) != total:
        yield f"its shards have {len(seen)} tensors together, and {total or 'none'} are promised"


def _called(file: str, number: int, count: int) -> str:
    return f"{printable(file, 80)}, shard {number} of {count}," if count > 1 else printable(file, 80)


def _number(header: GgufHeader, key: str) -> int | None:
    value = header.metadata.get(key)
    return value if type(value) is int else None  # a bool is not, nor a float


def _refusal(model: str, why: str) -> IncompleteModelError:
    return IncompleteModelError(
        "cannot use the split model", model, why,
        hint="the source is wrong: take another quant; `llama-mgr index prune` removes what came of this one",
    )  # fmt: skip
