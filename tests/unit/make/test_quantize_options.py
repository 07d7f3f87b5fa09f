import msgspec
import pytest

from llama_mgr.errors import BadInputError
from llama_mgr.make.quantize_options import QuantizeOptions


def test_nothing_asked_is_nothing_said() -> None:
    assert QuantizeOptions().argv() == []
    QuantizeOptions().require_well_formed()
    assert msgspec.to_builtins(QuantizeOptions()) == {}


def test_options_are_spelled_as_llama_quantize_does() -> None:
    options = QuantizeOptions(
        tensor_types=["attn_q=q8_0", r"blk\.\d+\.ffn=q6_k"], output_tensor_type="q8_0", token_embedding_type="q6_k",
        leave_output_tensor=True, pure=True, prune_layers="20,21",
        override_kv=["a.b=int:1", "general.name=str:A = b:c"], keep_split=True, allow_requantize=True,
    )  # fmt: skip
    options.require_well_formed()
    assert options.argv() == [
        "--tensor-type", "attn_q=q8_0", "--tensor-type", r"blk\.\d+\.ffn=q6_k", "--output-tensor-type", "q8_0",
        "--token-embedding-type", "q6_k", "--leave-output-tensor", "--pure", "--prune-layers", "20,21",
        "--override-kv", "a.b=int:1", "--override-kv", "general.name=str:A = b:c", "--keep-split", "--allow-requantize",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (QuantizeOptions(tensor_types=["attn_q"]), "--tensor-type"),
        (QuantizeOptions(tensor_types=["a=q8_0", "=q8_0"]), "--tensor-type"),
        (QuantizeOptions(tensor_types=["a=q8_0,b=q4_0"]), "--tensor-type"),
        (QuantizeOptions(tensor_types=["a=q8_0\n"]), "--tensor-type"),
        (QuantizeOptions(output_tensor_type="--pure"), "--output-tensor-type"),
        (QuantizeOptions(token_embedding_type="q8 0"), "--token-embedding-type"),
        (QuantizeOptions(override_kv=["a:int=1"]), "--override-kv"),
        (QuantizeOptions(override_kv=["a=uint:1"]), "--override-kv"),
        (QuantizeOptions(override_kv=["a b=int:1"]), "--override-kv"),
        (QuantizeOptions(prune_layers="20-22"), "--prune-layers"),
        (QuantizeOptions(prune_layers="20,"), "--prune-layers"),
        (QuantizeOptions(prune_layers=" "), "--prune-layers"),
    ],
)
def test_malformed_values_are_refused_with_the_form(options: QuantizeOptions, flag: str) -> None:
    with pytest.raises(BadInputError, match=rf"cannot use {flag} .*the form is"):
        options.require_well_formed()


def test_options_come_back_from_a_side_car() -> None:
    options = QuantizeOptions(tensor_types=["a=q8_0"], pure=True)
    assert msgspec.convert(msgspec.to_builtins(options), QuantizeOptions) == options
