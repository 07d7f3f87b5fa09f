"""What may be asked of llama-quantize besides the type."""

import re
from collections.abc import Sequence

import msgspec

from llama_mgr.errors import BadInputError

_TYPE = re.compile(r"[A-Za-z0-9_]+")
_TENSOR_TYPE = re.compile(r"[^=\s]+=[A-Za-z0-9_]+")
_OVERRIDE = re.compile(r"[^=\s]+=(?:str|int|float|bool):.*", re.DOTALL)
_LAYERS = re.compile(r"\d+(?:,\d+)*")


class QuantizeOptions(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What may be asked of llama-quantize besides the type; what is not there is left to it."""

    tensor_types: list[str] = []
    output_tensor_type: str = ""
    token_embedding_type: str = ""
    leave_output_tensor: bool = False
    pure: bool = False
    prune_layers: str = ""
    override_kv: list[str] = []
    keep_split: bool = False
    allow_requantize: bool = False

    def require_well_formed(self) -> None:
        """Refuse values that llama-quantize would answer with its whole help.

        Raises:
            BadInputError: one has another form.
        """
        _require_form("--tensor-type", self.tensor_types, _TENSOR_TYPE, "NAME=TYPE, such as attn_q=q8_0")
        _require_form("--override-kv", self.override_kv, _OVERRIDE, "KEY=str|int|float|bool:VALUE")
        types = {"--output-tensor-type": self.output_tensor_type, "--token-embedding-type": self.token_embedding_type}
        for flag, value in types.items():
            _require_form(flag, [value] if value else [], _TYPE, "a type, such as q8_0")
        layers = [self.prune_layers] if self.prune_layers else []
        _require_form("--prune-layers", layers, _LAYERS, "numbers of layers with commas, such as 20,21")

    def argv(self) -> list[str]:
        """Return the options as llama-quantize spells them in all eras."""
        words: list[str] = []
        for name, value in msgspec.to_builtins(self).items():
            flag = "--tensor-type" if name == "tensor_types" else f"--{name.replace('_', '-')}"
            if value is True:
                words.append(flag)
            else:
                for one in value if isinstance(value, list) else [value]:
                    words += [flag, one]
        return words


def _require_form(flag: str, values: Sequence[str], form: re.Pattern[str], words: str) -> None:
    for value in values:
        if not form.fullmatch(value):
            raise BadInputError(f"cannot use {flag}", value, f"the form is {words}")
