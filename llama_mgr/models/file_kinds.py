"""What a file that should have been a GGUF looks like, told from its first bytes."""

from llama_mgr.text import printable

_AGAIN = "download it again"
_CONVERT = "convert the checkpoint: llama.cpp runs GGUF files only"
_SHOWN_CHARACTERS = 40

# First bytes, lower case. Files of the first half of 2023 have a number whose bytes spell the name backwards.
_SIGNATURES: tuple[tuple[tuple[bytes, ...], str, str | None], ...] = (
    ((b"ggml", b"lmgg", b"fmgg", b"tjgg", b"algg"), "an old GGML file, from before GGUF", "take a GGUF of the model"),
    ((b"fugg",), "a GGUF with its bytes swapped", "take the little-endian file"),
    ((b"version https://git-lfs",), "a Git LFS pointer, not the file that it stands for", "run `git lfs pull`"),
    ((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<script"), "a web page (HTML)", _AGAIN),
    ((b"pk\x03\x04",), "a ZIP archive, as PyTorch checkpoints are", _CONVERT),
    ((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a Python pickle, as PyTorch checkpoints are", _CONVERT),
    ((b"\x89hdf",), "an HDF5 file, as Keras checkpoints are", _CONVERT),
    ((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zxz", b"bzh"), "compressed", "unpack it first"),
    ((b"\x7felf",), "a program", None),
    ((b'{"error', b"entry not found", b"invalid username", b"access to "), "an error message of a server", _AGAIN),
)  # fmt: skip


def looks_like(beginning: bytes, size_bytes: int) -> tuple[str, str | None]:
    """Return why the file is no GGUF, and what may mend it.

    Args:
        beginning: its first bytes, a few hundred where there are so many.
        size_bytes: of all of it.
    """
    if not size_bytes:
        return "it is empty", _AGAIN
    if b"GGUF".startswith(beginning):
        return f"it is cut off: it has {size_bytes} bytes", _AGAIN
    if not any(beginning[:64]):
        why = "it begins with zeros: it is unfinished, as a stopped download or `llama-quantize` leaves it"
        return why, "make or download it again"
    start = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signatures, what, hint in _SIGNATURES:
        if start.startswith(signatures):
            return f"it is {what}", hint
    if beginning[8:10] == b'{"' and int.from_bytes(beginning[:8], "little") < size_bytes:
        return "it is a safetensors file", _CONVERT
    return _unknown(beginning), None


def _unknown(beginning: bytes) -> str:
    text = beginning[:_SHOWN_CHARACTERS].decode("utf-8", "ignore").split("\n")[0]
    if text and all(character.isprintable() or character in "\t\r" for character in text):
        return f"it is text that begins with '{printable(text)}', not a GGUF"
    return f"it begins with the bytes {beginning[:4].hex(' ')}, and a GGUF with 47 47 55 46"
