"""Numbers and texts of a header's metadata: a text or a truth value is no number.

Of which kind an integer is does not matter here; llama.cpp wants the right one.
"""

from collections.abc import Mapping

from llama_mgr.models.gguf import Array, Value

_NUMBER_LIMIT = 2**31  # llama.cpp keeps them in 32 bits
_TEXT_LIMIT_CHARACTERS = 200


class ModelFacts:
    """The metadata of one model; keys of its architecture are named without their prefix.

    Args:
        metadata: of the header.
        architecture: the prefix of the keys that belong to it.
    """

    def __init__(self, metadata: Mapping[str, Value], architecture: str) -> None:
        self._metadata = metadata
        self.architecture = architecture

    def text(self, key: str) -> str | None:
        """Return the text of the whole `key`, cut at 200 characters; None when it is missing or empty."""
        value = self._metadata.get(key)
        return value[:_TEXT_LIMIT_CHARACTERS] if isinstance(value, str) and value else None

    def has(self, key: str) -> bool:
        """Tell whether there is a whole `key`, whatever its value."""
        return key in self._metadata

    def general(self, key: str) -> int | None:
        """Return the number of the whole `key`, or None."""
        value = self._metadata.get(key)
        return value if type(value) is int and 0 <= value < _NUMBER_LIMIT else None

    def is_true(self, key: str) -> bool:
        """Tell whether the whole `key` is there and says yes."""
        return self._metadata.get(key) is True

    def general_count(self, key: str) -> int | None:
        """Return the length of the array of the whole `key`, or None."""
        value = self._metadata.get(key)
        return value.count if isinstance(value, Array) and value.count < _NUMBER_LIMIT else None

    def number(self, key: str) -> int | None:
        """Return the number of the architecture's `key`, or None."""
        return self.general(f"{self.architecture}.{key}")

    def numbers(self, key: str) -> tuple[int, ...] | None:
        """Return the array of the architecture's `key`, or None when it has something else than numbers.

        Truth values count as 0 and 1: files name layers by either.
        """
        value = self._metadata.get(f"{self.architecture}.{key}")
        if not isinstance(value, Array) or value.values is None:
            return None
        numbers = tuple(int(one) for one in value.values if isinstance(one, int) and 0 <= one < _NUMBER_LIMIT)
        return numbers if len(numbers) == value.count else None

    def per_layer(self, key: str, layers: int) -> list[int] | None:
        """Return one number for each layer: of an array as long as that, or the same for all; None when missing."""
        number = self.number(key)
        if number is not None:
            return [number] * layers
        numbers = self.numbers(key)
        return list(numbers) if numbers is not None and len(numbers) >= layers else None
