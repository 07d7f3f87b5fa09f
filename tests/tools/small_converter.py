"""A converter of three architectures, as text, in both forms that upstream has had: a package, and one script."""

MAPS = """
TEXT_MODEL_MAP: dict[str, str] = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral", "SeeModel": "see"}
MMPROJ_MODEL_MAP: dict[str, str] = {"SeeModel": "see"}
"""
BASE = '''
import logging

logger = logging.getLogger("hf-to-gguf")


class ModelBase:
    def write(self):
        """Write it."""
        self.prepare_tensors()


class TextModel(ModelBase):
    def get_vocab_base_pre(self, tokenizer) -> str:
        chkhsh = hash(tokenizer)
        res = None
        if chkhsh == "0ef9":
            # ref: https://example.invalid/llama
            res = "llama-bpe"
        if chkhsh == "27949":
            res = "falcon"
        if res is None:
            raise NotImplementedError("unknown")
        return res


class MmprojModel(ModelBase):
    def find_vparam(self):
        return 1
'''
LLAMA = """
from __future__ import annotations

from .base import ModelBase, TextModel, logger
from . import ropes


@ModelBase.register("LlamaForCausalLM")
class LlamaModel(TextModel):
    model_arch = "llama"

    def set_vocab(self):
        self._set_vocab_sentencepiece()

    def modify_tensors(self, data_torch, name: str):
        logger.info("modify")
        if name.endswith("q_proj.weight"):
            data_torch = self.permute(data_torch, 2)
        return ropes.turned(data_torch)

    @staticmethod
    def permute(weights, n_head: int):
        return weights.reshape(n_head, 2)
"""
ROPES = """
ANGLE = 90


def turned(data):
    return data * ANGLE


def unused(data):
    return data
"""
MISTRAL = """
from conversion.base import ModelBase
from conversion.llama import LlamaModel as Parent


@ModelBase.register("MistralForCausalLM")
class MistralModel(Parent):
    def set_vocab(self):
        self._set_vocab_mistral()
"""
SEE = """
from .base import MmprojModel, ModelBase, TextModel
from .llama import LlamaModel


@ModelBase.register("SeeModel")
class SeeTextModel(TextModel):
    pass


@ModelBase.register("SeeModel")
class SeeVisionModel(MmprojModel):
    def modify_tensors(self, data_torch):
        return LlamaModel.permute(data_torch, 4)
"""
PACKAGE = {
    "convert_hf_to_gguf.py": "from conversion import ModelBase\n",
    "conversion/__init__.py": "from .base import ModelBase, TextModel\n" + MAPS,
    "conversion/base.py": BASE,
    "conversion/llama.py": LLAMA,
    "conversion/mistral.py": MISTRAL,
    "conversion/ropes.py": ROPES,
    "conversion/see.py": SEE,
}


def single_file(*, script: str = "convert_hf_to_gguf.py") -> dict[str, str]:
    """The same classes in one script, as until b9190."""
    body = LLAMA.replace("from .base import ModelBase, TextModel, logger\nfrom . import ropes\n", "")
    return {
        script: f"from __future__ import annotations\n{BASE}\n{body.replace('from __future__ import annotations', '')}"
    }
