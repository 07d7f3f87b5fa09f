"""Sets of shards that are no model, and how they are told from whole ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.errors import IncompleteModelError
from llama_mgr.models.gguf import GgufHeader, read_gguf
from llama_mgr.models.shards import require_one_model, require_shard
from tests.tools.gguf_file import Typed, model_bytes

NAMES = [f"tiny-{number:05}-of-00003.gguf" for number in (1, 2, 3)]


@pytest.fixture
def header(tmp_path: Path) -> Callable[..., GgufHeader]:
    def made(split: tuple[int, int] | None, **more: object) -> GgufHeader:
        path = tmp_path / "x.gguf"
        path.write_bytes(model_bytes(split=split, **more))  # type: ignore[arg-type]
        return read_gguf(path)

    return made


def test_all_shards_in_order_are_one_model(header: Callable[..., GgufHeader]) -> None:
    require_one_model("owner/tiny", NAMES, [header((number, 3)) for number in range(3)])
    require_one_model("owner/tiny", ["tiny.gguf"], [header(None)])
    require_one_model("owner/tiny", ["tiny.gguf"], [header((0, 1))])


@pytest.mark.parametrize(
    ("shards", "says"),
    [
        ([(0, 3), (2, 3), (1, 3)], "tiny-00002-of-00003.gguf, shard 2 of 3, is number 3"),
        ([(0, 3), (1, 3), (1, 3)], "shard 3 of 3, is number 2"),
        ([(1, 3), (1, 3), (2, 3)], "shard 1 of 3, is number 2"),
        ([(0, 3), (1, 2), (2, 3)], "shard 2 of 3, is one of 2 shards"),
        ([(0, 4), (1, 4), (2, 4)], "shard 1 of 3, is one of 4 shards"),
        ([(0, 3), None, (2, 3)], "shard 2 of 3, is no shard at all"),
        ([None, None, None], "shard 1 of 3, is no shard at all"),
    ],
)
def test_a_shard_that_is_another_is_named(
    header: Callable[..., GgufHeader], shards: list[tuple[int, int] | None], says: str
) -> None:
    with pytest.raises(IncompleteModelError, match=says):
        require_one_model("owner/tiny", NAMES, [header(split) for split in shards])


def test_a_lone_shard_is_no_model(header: Callable[..., GgufHeader]) -> None:
    with pytest.raises(IncompleteModelError, match=r"renamed\.gguf is one of 3 shards"):
        require_one_model("owner/tiny", ["renamed.gguf"], [header((1, 3))])


def test_shards_of_different_models_do_not_belong_together(header: Callable[..., GgufHeader]) -> None:
    mixed = [header((0, 3)), header((1, 3), layers=2), header((2, 3))]
    with pytest.raises(IncompleteModelError, match="shard 2 of 3, belongs to another model than shard 1"):
        require_one_model("owner/tiny", NAMES, mixed)


def test_missing_and_doubled_tensors_are_found(header: Callable[..., GgufHeader]) -> None:
    claims = {"split.tensors.count": Typed("int32", 13)}
    with pytest.raises(IncompleteModelError, match="12 tensors together, and 13 are promised"):
        require_one_model("owner/tiny", NAMES, [header((number, 3), extra=claims) for number in range(3)])
    first_again = {"split.no": Typed("uint16", 1)}
    doubled = [header((0, 3)), header((0, 3), extra=first_again), header((2, 3))]
    with pytest.raises(IncompleteModelError, match=r"shard 2 of 3, repeats the tensor token_embd.weight"):
        require_one_model("owner/tiny", NAMES, doubled)


@pytest.mark.parametrize("value", ["1", -1, 65536, 1.0])
def test_a_number_of_another_kind_is_not_the_right_one(header: Callable[..., GgufHeader], value: object) -> None:
    with pytest.raises(IncompleteModelError):
        require_shard("owner/tiny", NAMES[1], 2, 3, header((1, 3), extra={"split.no": value}))
