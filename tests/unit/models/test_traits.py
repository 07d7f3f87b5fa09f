"""What a header says of a model: its kind, quant, size, abilities, and the shards of a split one."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from llama_mgr.errors import BadGgufError, IncompleteModelError
from llama_mgr.models.gguf import parse_gguf, read_gguf
from llama_mgr.models.traits import KvCache, Split, Traits, TypeShare, merged, traits_of
from tests.tools.gguf_file import (
    CHAT_TEMPLATE,
    QUANTS,
    SmallModel,
    TensorInfo,
    Typed,
    gguf_bytes,
    gguf_head,
    model_bytes,
)
from tests.tools.gguf_fuzz import BytesSource


def traits(content: bytes, file_name: str = "model.gguf") -> Traits:
    return traits_of(parse_gguf(BytesSource(content, len(content)), file_name), file_name)


def of(metadata: Mapping[str, object], tensors: tuple[TensorInfo, ...] = (TensorInfo("t.weight", (32, 32)),)) -> Traits:
    return traits(gguf_bytes(metadata, tensors))


def model(**more: object) -> Traits:
    return traits(model_bytes(**more))  # type: ignore[arg-type]


def test_all_of_a_model() -> None:
    found = model(name="My Model", context=4096)
    assert msgspec.structs.replace(found, types={}) == Traits(
        kind="model",
        architecture="llama",
        title="My Model",
        parameters=393_984,
        quant="Q4_K_M",
        bits_per_weight=5.068,
        context_tokens=4096,
        embedding_size=256,
        vocabulary_size=64,
        layers=1,
        chat_template_sha256=hashlib.sha256(CHAT_TEMPLATE.encode()).hexdigest(),
        capabilities=("completion",),
        license="apache-2.0",
        split=None,
        types={},
        kv_cache=KvCache(1 * (64 + 64) * 2),
    )
    assert found.types["F32"] == TypeShare(3, 768, 3072)
    assert list(found.types) == ["Q4_K", "Q6_K", "F32"]


@pytest.mark.real
def test_a_real_model(small_model: Path) -> None:
    found = traits_of(read_gguf(small_model), small_model.name)
    assert (found.architecture, found.parameters, found.quant) == ("llama", 134_515_008, "Q4_1")
    assert (found.context_tokens, found.embedding_size, found.layers) == (8192, 576, 30)
    assert (found.vocabulary_size, found.license, found.capabilities) == (49152, "apache-2.0", ("completion",))
    assert found.kv_cache == KvCache(30 * 3 * (64 + 64) * 2)


def test_they_survive_json() -> None:
    found = model(split=(0, 3))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Traits) == found


def test_nothing_is_needed() -> None:
    found = of({})
    assert (found.kind, found.architecture, found.title, found.quant) == ("model", "", None, "F32")
    assert (found.context_tokens, found.layers, found.kv_cache, found.capabilities) == (None, None, None, ())


@pytest.mark.parametrize("value", ["text", -1, 2**40, 0.5, [1, 2], True])
def test_values_of_wrong_types_count_as_missing(value: object) -> None:
    extra = {"llama.context_length": value, "llama.attention.head_count": value, "split.count": value}
    found = model(extra=extra)
    assert found.context_tokens is None
    assert found.split is None


def test_texts_are_made_printable_and_cut() -> None:
    found = model(name="evil\x1b[2J\u202e" + "x" * 5000, extra={"general.license": "a\nb", "general.type": "mo\x07del"})
    assert found.title is not None
    assert found.title.startswith(r"evil\x1b[2J\u202e")
    assert len(found.title) < 300
    assert (found.license, found.kind) == (r"a\nb", r"mo\x07del")


# -- kinds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"general.type": "model"}, "model"),
        ({"general.architecture": "clip"}, "mmproj"),
        ({"general.architecture": "clip", "general.type": "model"}, "mmproj"),
        ({"general.type": "mmproj"}, "mmproj"),
        ({"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}, "adapter"),
        ({"adapter.type": "lora"}, "adapter"),
        ({"general.type": "imatrix"}, "imatrix"),
        ({"general.architecture": "controlvector"}, "control-vector"),
    ],
)
def test_kinds(metadata: dict[str, object], kind: str) -> None:
    found = of(metadata)
    assert found.kind == kind
    assert found.kv_cache is None


def test_a_vocabulary_alone_is_no_model() -> None:
    metadata, _ = SmallModel().parts()
    found = traits(gguf_bytes(metadata))
    assert (found.kind, found.vocabulary_size, found.parameters, found.bits_per_weight) == ("vocab", 64, 0, 0.0)
    assert found.capabilities == ()


# -- quants ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quant", QUANTS)
def test_the_declared_quant(quant: str) -> None:
    assert model(quant=quant).quant == quant


@pytest.mark.parametrize("quant", QUANTS)
def test_the_quant_told_by_tensors_alone(quant: str) -> None:
    assert model(quant=quant, extra={"general.file_type": None}).quant == quant


@pytest.mark.parametrize(
    ("file_name", "made_as", "declared", "expected"),
    [
        ("m-UD-Q4_K_XL.gguf", "Q4_K_M", 15, "UD-Q4_K_XL"),
        ("m-Q4_K_L.gguf", "Q4_K_M", 15, "Q4_K_L"),
        ("m-Q4_K_M.gguf", "Q8_0", 7, "Q8_0"),  # renamed by mistake
        ("m-UD-Q4_K_XL.gguf", "Q8_0", 7, "Q8_0"),
        ("m-Q4_K_M.gguf", "Q4_K_S", 14, "Q4_K_S"),
        ("m-Q4.gguf", "Q4_K_M", 15, "Q4_K_M"),
        ("m.gguf", "Q8_0", 15, "Q8_0"),  # the header lies
        ("m.gguf", "Q8_0", 9999, "Q8_0"),
        ("m-Q8_0.gguf", "Q8_0", 15, "Q8_0"),
        ("m-F16.gguf", "Q8_0", 1, "Q8_0"),  # both lie
        ("m-Q4_K_M.gguf", "Q4_K_M", None, "Q4_K_M"),
        ("m-IQ3_M.gguf", "IQ3_S", 27, "IQ3_M"),
        ("m-fp16.gguf", "F16", 1, "F16"),
    ],
)
def test_header_name_and_tensors_disagree(file_name: str, made_as: str, declared: int | None, expected: str) -> None:
    found = traits(model_bytes(quant=made_as, extra={"general.file_type": declared}), file_name)
    assert found.quant == expected


# How Unsloth calls them, what their header declares, and what most of their weights and the others are.
DYNAMIC = [
    ("UD-TQ1_0", 24, "IQ1_S", "IQ2_XXS"), ("UD-TQ1_0", 36, "IQ1_S", "Q4_K"), ("UD-IQ1_S", 24, "IQ1_S", "IQ2_XXS"),
    ("UD-IQ1_M", 31, "IQ1_M", "IQ2_XXS"), ("UD-IQ2_XXS", 19, "IQ2_XXS", "IQ3_XXS"),
    ("UD-IQ2_M", 29, "IQ2_S", "IQ3_XXS"),
    ("UD-Q2_K_XL", 10, "Q2_K", "Q3_K"), ("UD-IQ3_XXS", 23, "IQ3_XXS", "IQ4_XS"), ("UD-Q3_K_XL", 12, "Q3_K", "Q4_K"),
    ("UD-Q4_K_XL", 15, "Q4_K", "Q6_K"), ("UD-Q5_K_XL", 17, "Q5_K", "Q6_K"), ("UD-Q6_K_XL", 18, "Q6_K", "Q8_0"),
    ("UD-Q8_K_XL", 7, "Q8_0", "BF16"), ("UD-Q8_K_XL", 7, "Q8_0", "F16"),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "declared", "main", "beside"), DYNAMIC)
def test_dynamic_quants(tag: str, declared: int, main: str, beside: str) -> None:
    tensors = [TensorInfo(f"blk.{layer}.ffn_up.weight", (256, 512), main) for layer in range(3)]
    tensors += [TensorInfo("blk.0.ffn_down.weight", (256, 512), beside)]
    metadata = {"general.architecture": "llama", "general.file_type": declared}
    assert traits(gguf_bytes(metadata, tensors), f"M-{tag}.gguf").quant == tag
    undeclared = gguf_bytes({"general.architecture": "llama"}, tensors)
    assert traits(undeclared, f"M-{tag}.gguf").quant == tag
    parts = []
    for number, share in enumerate((tensors[3:], tensors[:3])):  # the first has none of the main type
        keys = {"split.no": number, "split.count": 2, "split.tensors.count": 4}
        content = gguf_bytes({**keys, **(metadata if number == 0 else {})}, share)
        parts.append(traits(content, f"M-{tag}-0000{number + 1}-of-00002.gguf"))
    assert merged(parts).quant == tag


def test_a_split_model_called_dynamic_by_mistake() -> None:
    parts = [
        traits(model_bytes(quant="Q8_0", split=(number, 2)), f"m-UD-Q4_K_XL-0000{number + 1}-of-00002.gguf")
        for number in range(2)
    ]
    assert merged(parts).quant == "Q8_0"


def test_rows_that_no_k_quant_fits() -> None:
    """Of the 576 columns of SmolLM2 llama-quantize makes Q5_0 instead of Q4_K."""
    tensors = [TensorInfo(f"blk.{layer}.attn_q.weight", (576, 576), "Q5_0") for layer in range(9)]
    tensors += [TensorInfo("blk.0.ffn_down.weight", (1536, 576), "Q6_K")]
    content = gguf_bytes({"general.architecture": "llama", "general.file_type": 15}, tensors)
    assert traits(content).quant == "Q4_K_M"


def test_experts_that_stay_as_they_came() -> None:
    """In a gpt-oss called Q4_K_M nearly all weights are MXFP4; header and name agree, and tell it from others."""
    tensors = [
        TensorInfo("blk.0.ffn_up_exps.weight", (256, 256, 32), "MXFP4"),
        TensorInfo("blk.0.attn_q.weight", (256, 256), "Q4_K"),
    ]
    content = gguf_bytes({"general.architecture": "gpt-oss", "general.file_type": 15}, tensors)
    assert traits(content, "gpt-oss-20b-Q4_K_M.gguf").quant == "Q4_K_M"
    assert traits(content, "gpt-oss-20b.gguf").quant == "MXFP4"


def test_a_mixture_of_experts_in_mxfp4() -> None:
    tensors = [
        TensorInfo("blk.0.ffn_down_exps.weight", (256, 256, 32), "MXFP4"),
        TensorInfo("blk.0.attn_v.weight", (256, 64), "Q8_0"),
    ]
    assert traits(gguf_bytes({}, tensors)).quant == "MXFP4_MOE"


# -- abilities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, ()),
        ("{{ messages }}", ()),
        ("{% if tools %}{{ tools | tojson }}{% endif %}", ("tools",)),
        ("{% for c in message.tool_calls %}{% endfor %}", ("tools",)),
        ("{{ content.split('</think>') }}", ("thinking",)),
        ("{% if enable_thinking is defined %}{% endif %}{{ tools }}", ("tools", "thinking")),
        ("{{ reasoning_effort }}", ("thinking",)),
    ],
)
def test_abilities_from_the_template(template: str | None, expected: tuple[str, ...]) -> None:
    assert model(chat_template=template).capabilities == ("completion", *expected)


def test_templates_count_up_to_a_million_characters() -> None:
    long = "x" * 600_000
    extra = {"tokenizer.chat_template.a": f"{long}</think>", "tokenizer.chat_template.b": f"{long}{{{{ tools }}}}"}
    assert model(chat_template=None, extra=extra).capabilities == ("completion", "thinking")


def test_a_named_template_counts_too() -> None:
    extra = {"tokenizer.chat_template.tool_use": "{{ tools }}", "tokenizer.chat_templates": ["tool_use"]}
    assert model(extra=extra).capabilities == ("completion", "tools")


@pytest.mark.parametrize("names", [("fim_pre", "fim_suf"), ("prefix", "suffix")])
def test_insertion(names: tuple[str, str]) -> None:
    keys = {f"tokenizer.ggml.{name}_token_id": 5 for name in names}
    assert model(extra=keys).capabilities == ("completion", "insert")
    assert model(extra=dict(list(keys.items())[:1])).capabilities == ("completion",)


@pytest.mark.parametrize(
    ("architecture", "pooling", "expected"),
    [
        ("bert", None, ("embedding",)),
        ("bert", 2, ("embedding",)),
        ("nomic-bert", 1, ("embedding",)),
        ("gemma-embedding", 1, ("embedding",)),
        ("qwen3", 3, ("embedding",)),
        ("qwen3", 4, ("rerank",)),
        ("bert", 4, ("rerank",)),
        ("qwen3", 0, ("completion",)),
        ("qwen3", None, ("completion",)),
        ("llada", None, ()),
        ("eagle3", None, ()),
    ],
)
def test_who_writes_and_who_embeds(architecture: str, pooling: int | None, expected: tuple[str, ...]) -> None:
    assert model(architecture=architecture, extra={f"{architecture}.pooling_type": pooling}).capabilities == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("vision",)),
        ({"clip.has_vision_encoder": True}, ("vision",)),
        ({"clip.has_audio_encoder": 1}, ("vision",)),  # a number is no truth value
        ({"clip.has_audio_encoder": True}, ("audio",)),
        ({"clip.has_vision_encoder": True, "clip.has_audio_encoder": True}, ("vision", "audio")),
        ({"clip.has_vision_encoder": False, "clip.has_audio_encoder": True}, ("audio",)),
    ],
)
def test_what_a_projector_adds(keys: dict[str, object], expected: tuple[str, ...]) -> None:
    assert of({"general.architecture": "clip", **keys}).capabilities == expected


def test_eyes_in_the_same_file() -> None:
    assert model(extra={"llama.vision.block_count": 24}).capabilities == ("completion", "vision")


def test_weights_without_a_tokenizer_do_nothing() -> None:
    assert of({"general.architecture": "flux"}).capabilities == ()


# -- what ends llama-server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("block_count", 0, "it has 0 layers"),
        ("block_count", 513, "it has 513 layers"),
        ("block_count", 2**31, "2,147,483,648 layers"),
        ("context_length", 0, "a context of 0 tokens"),
    ],
)
def test_numbers_that_llama_server_aborts_on(key: str, value: int, words: str) -> None:
    with pytest.raises(BadGgufError, match=words):
        model(extra={f"llama.{key}": value})
    beside = {"general.architecture": "llama", "general.type": "adapter", f"llama.{key}": value}
    assert of(beside).kind == "adapter"


@pytest.mark.parametrize("layers", [1, 512])
def test_the_fewest_and_the_most_layers(layers: int) -> None:
    assert model(extra={"llama.block_count": layers}).layers == layers


@pytest.mark.parametrize("alignment", [1, 8, 16])
def test_tensors_off_32_bytes(alignment: int) -> None:
    tensors = [TensorInfo("a", (alignment // 4 or 1,)), TensorInfo("b", (8,))]
    with pytest.raises(BadGgufError, match=f"aligned to {alignment} bytes, and llama.cpp needs 32"):
        traits(gguf_bytes({"general.alignment": alignment}, tensors, alignment=alignment))
    whole = gguf_bytes({"general.alignment": 32}, tensors)
    assert traits(whole).kind == "model"


# -- shards ------------------------------------------------------------------------------------------------------------


def shards(quant: str = "Q4_K_M", count: int = 3) -> list[Traits]:
    return [
        traits(model_bytes(quant=quant, split=(number, count)), f"m-{quant}-{number + 1:05}-of-{count:05}.gguf")
        for number in range(count)
    ]


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q8_0", "F16"])
def test_shards_make_the_model_that_was_split(quant: str) -> None:
    parts = shards(quant)
    assert [part.split for part in parts] == [Split(number, 3, 12) for number in range(3)]
    assert [part.architecture for part in parts] == ["llama", "", ""]
    assert merged(parts[::-1]) == model(quant=quant)


def test_a_first_shard_without_tensors() -> None:
    metadata, tensors = SmallModel().parts()
    keys = {"split.count": Typed("uint16", 2), "split.tensors.count": Typed("int32", len(tensors))}
    first = traits(gguf_bytes({**metadata, **keys, "split.no": Typed("uint16", 0)}), "m-00001-of-00002.gguf")
    second = traits(gguf_bytes({**keys, "split.no": Typed("uint16", 1)}, tensors), "m-00002-of-00002.gguf")
    assert (first.kind, first.quant, first.parameters) == ("model", "Q4_K_M", 0)
    assert merged([first, second]) == model()


def test_a_split_model_whose_header_lies() -> None:
    parts = [
        traits(
            model_bytes(quant="Q8_0", split=(number, 2), extra={"general.file_type": 15}),
            f"m-0000{number + 1}-of-00002.gguf",
        )
        for number in range(2)
    ]
    assert merged(parts).quant == "Q8_0"


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_shard(missing: int) -> None:
    parts = [part for number, part in enumerate(shards()) if number != missing]
    with pytest.raises(IncompleteModelError, match="missing"):
        merged(parts)


def test_shards_of_another_model() -> None:
    mixed = [*shards()[:2], traits(model_bytes(layers=2, split=(2, 3)))]
    with pytest.raises(IncompleteModelError, match="do not belong together"):
        merged(mixed)
    with pytest.raises(IncompleteModelError, match="do not belong together"):
        merged([*shards(), shards()[1]])


@pytest.mark.parametrize(("number", "count"), [(0, 1), (3, 3), (0, 0), (0, 2**31 - 1)])
def test_odd_shard_numbers_are_none(number: int, count: int) -> None:
    keys = {"split.no": number, "split.count": count, "split.tensors.count": 12}
    assert model(extra=keys).split is None


def test_a_header_is_enough() -> None:
    head = gguf_head(*SmallModel().parts())
    assert traits_of(parse_gguf(BytesSource(head, 10**6), "x"), "x").quant == "Q4_K_M"
