"""What a log says about its failure."""

import pytest

from llama_mgr.build.failure import diagnose, relevant_lines
from llama_mgr.build.recipe_file import Failure

GCC = Failure(
    match=r"unsupported GNU version! gcc versions later than (\d+)",
    cause="nvcc accepts gcc up to {1}",
    fix="apt install g++-{1}",
)
CUBLAS = Failure(match=r"CUDA::cublas\s+but the target was not found", cause="cuBLAS is missing", fix="install it")
NINJA_LOG = """[1/4] Building C object a.c.o
[2/4] Building C object b.c.o
FAILED: [code=1] src/b.c.o
/usr/bin/cc -I/x/{long} -c b.c -o b.c.o
b.c: In function 'f':
b.c:3:5: warning: unused variable 'x'
b.c:7:1: error: expected ';' before '}' token
    7 | }
[3/4] Building C object c.c.o
c.c:1:1: warning: something else
ninja: build stopped: subcommand failed.
"""
CMAKE_LOG = """-- The C compiler identification is GNU 12.2.0
CMake Warning at ggml/CMakeLists.txt:1 (message):
  ccache not found

CMake Error at ggml/src/ggml-cuda/CMakeLists.txt:20 (message):
  CUDA Toolkit not found


-- Configuring incomplete, errors occurred!
"""


def test_the_words_are_filled_from_the_log() -> None:
    known = diagnose("x\n#error -- unsupported GNU version! gcc versions later than 14 are not\n", [CUBLAS, GCC])
    assert known is not None
    assert (known.cause, known.fix) == ("nvcc accepts gcc up to 14", "apt install g++-14")


def test_a_signature_may_span_lines() -> None:
    known = diagnose("links to:\n\n    CUDA::cublas\n\n  but the target was not found.\n", [GCC, CUBLAS])
    assert known is not None
    assert known.cause == "cuBLAS is missing"


def test_the_first_that_matches_wins_and_none_is_none() -> None:
    any_line = Failure(match="^.", cause="any", fix="none")
    log = "unsupported GNU version! gcc versions later than 9"
    assert [found.cause for one in ([any_line, GCC], [GCC, any_line]) if (found := diagnose(log, one))] == [
        "any",
        "nvcc accepts gcc up to 9",
    ]
    assert diagnose("all is well", [GCC, CUBLAS]) is None
    assert diagnose("", [GCC]) is None


def test_groups_that_took_no_part_or_do_not_exist() -> None:
    known = diagnose("ac", [Failure(match="a(b)?c", cause="<{1}> {2} {x}", fix="{0}")])
    assert known is not None
    assert (known.cause, known.fix) == ("<> {2} {x}", "ac")


def test_what_the_log_put_into_the_words_is_printable() -> None:
    known = diagnose("lib\x1b[31m\u202eevil", [Failure(match="lib(.*)", cause="{1}", fix="f")])
    assert known is not None
    assert known.cause == "\\x1b[31m\\u202eevil"


def test_only_the_end_is_searched_and_long_lines_are_cut() -> None:
    sign = "unsupported GNU version! gcc versions later than 9"
    assert diagnose(sign + "\n" + "x\n" * 200_000, [GCC]) is None
    assert diagnose("x" * 5000 + sign, [GCC]) is None
    assert diagnose("x\n" * 200_000 + sign, [GCC]) is not None


def test_the_failed_step_of_ninja_is_the_tail() -> None:
    tail = relevant_lines(NINJA_LOG)
    assert tail[0] == "FAILED: [code=1] src/b.c.o"
    assert "b.c:7:1: error: expected ';' before '}' token" in tail
    assert not any("c.c" in line or "/usr/bin/cc" in line or "build stopped" in line for line in tail)


def test_of_a_long_step_the_error_is_kept() -> None:
    notes = "".join(f"b.c:{number}:1: warning: w{number}\n" for number in range(100))
    tail = relevant_lines(f"FAILED: [code=1] b.o\ncc b.c\n{notes}b.c:7:1: error: here\n{notes}")
    assert len(tail) == 12
    assert tail[2] == "b.c:7:1: error: here"


def test_the_error_of_cmake_is_the_tail() -> None:
    tail = relevant_lines(CMAKE_LOG)
    assert tail[:2] == ["CMake Error at ggml/src/ggml-cuda/CMakeLists.txt:20 (message):", "  CUDA Toolkit not found"]


@pytest.mark.parametrize(("log", "expected"), [("", []), ("\n\n", []), ("a\nb\n", ["a", "b"])])
def test_a_log_without_either_gives_its_end(log: str, expected: list[str]) -> None:
    assert relevant_lines(log) == expected
