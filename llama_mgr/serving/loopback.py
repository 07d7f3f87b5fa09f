"""Talking to a llama-server on this machine: is it ready, and one question."""

import http.client
import json
import time
from dataclasses import dataclass

import msgspec

from llama_mgr.errors import ChildFailedError
from llama_mgr.text import printable

HOST = "127.0.0.1"
_PROBE_TIMEOUT_S = 2.0
_ANSWER_LIMIT_BYTES = 4 * 1024 * 1024
_READY = 200


@dataclass(frozen=True)
class Answer:
    """What a model said: its text, how many tokens that were, and how fast they came (per second)."""

    text: str
    tokens: int
    tokens_per_second: float


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Timings(msgspec.Struct):
    predicted_per_second: float | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage = msgspec.field(default_factory=_Usage)
    timings: _Timings = msgspec.field(default_factory=_Timings)


def is_ready(port: int) -> bool:
    """Tell whether the server on `port` has loaded its model: `/health` says 200 in every era, 503 while loading."""
    try:
        return _exchange(port, "GET", "/health", None, _PROBE_TIMEOUT_S)[0] == _READY
    except (OSError, http.client.HTTPException):
        return False


def ask(port: int, prompt: str, *, max_tokens: int, timeout_s: float) -> Answer:
    """Ask the model on `port` one question, with temperature 0 and a fixed seed.

    Raises:
        ChildFailedError: the server does not answer, or not with a chat completion.
    """
    question = {
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "seed": 42,
        "max_tokens": max_tokens,
    }
    started = time.monotonic()
    try:
        status, body = _exchange(port, "POST", "/v1/chat/completions", json.dumps(question).encode(), timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise ChildFailedError(
            "cannot ask the server", f"port {port}", printable(error) or type(error).__name__
        ) from error
    if status != _READY:
        raise ChildFailedError("cannot ask the server", f"port {port}", f"it answered {status}: {_said(body)}")
    return _answer(port, body, time.monotonic() - started)


def _answer(port: int, body: bytes, took_s: float) -> Answer:
    try:
        completion = msgspec.json.decode(body, type=_Completion)
        message = completion.choices[0].message
    except (msgspec.MsgspecError, IndexError, UnicodeDecodeError) as error:
        raise ChildFailedError("cannot understand the server", f"port {port}", _said(body)) from error
    tokens = completion.usage.completion_tokens
    speed = completion.timings.predicted_per_second or tokens / max(took_s, 1e-6)
    return Answer((message.content or message.reasoning_content or "").strip(), tokens, speed)


def _exchange(port: int, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_LIMIT_BYTES)
    finally:
        connection.close()


def _said(body: bytes) -> str:
    return printable(body.decode("utf-8", "replace"), 200)
