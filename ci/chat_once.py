"""Wait for a llama-server, ask it one question, print the answer: `python ci/chat_once.py URL QUESTION [SECONDS]`.

Ends with 1 when no answer with words came within the time (300 s).
"""

import http.client
import json
import sys
import time
import urllib.error
import urllib.request

_EACH_S = 240


def is_ready(url: str) -> bool:
    """Tell whether the server says that its model is loaded."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 (the caller's own server)
            return bool(answer.status == http.client.OK)
    except (OSError, http.client.HTTPException):
        return False


def ask(url: str, question: str) -> str:
    """Return the model's answer to `question`."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 24, "temperature": 0}
    request = urllib.request.Request(  # noqa: S310
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_EACH_S) as answer:  # noqa: S310
        text: str = json.load(answer)["choices"][0]["message"]["content"]
    return text.strip()


def main(url: str, question: str, patience_s: str = "300") -> int:
    """Ask once the server is ready; give up after `patience_s`."""
    deadline = time.monotonic() + float(patience_s)
    while not is_ready(url):
        if time.monotonic() > deadline:
            print(f"{url} did not become ready within {patience_s} s", file=sys.stderr)
            return 1
        time.sleep(0.2)
    try:
        answer = ask(url, question)
    except (OSError, KeyError, ValueError, http.client.HTTPException) as error:
        print(f"{url} did not answer: {error}", file=sys.stderr)
        return 1
    print(answer)
    return 0 if any(character.isalpha() for character in answer) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
