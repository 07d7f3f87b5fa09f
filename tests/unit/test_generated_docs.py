"""The pages that are made from the code say what the code says."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from llama_mgr.errors import error_classes

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate_docs", ROOT / "ci" / "generate_docs.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_page_is_up_to_date(generator: ModuleType) -> None:
    for page, text in generator.PAGES.items():
        assert page.read_text("utf-8") == text(), f"{page.name} is out of date: run python ci/generate_docs.py"


def test_exit_codes_page_has_every_error_once(generator: ModuleType) -> None:
    on_the_page = re.findall(r"^\| `(\w+)` \|", generator.exit_codes_page(), flags=re.MULTILINE)
    assert on_the_page == [one.code for one in error_classes()]


def test_codes_are_unique_and_every_class_has_its_own() -> None:
    codes = [one.code for one in error_classes()]
    assert len(set(codes)) == len(codes)
    assert all("code" in vars(one) for one in error_classes())
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_every_error_says_when_it_is_raised() -> None:
    assert all((one.__doc__ or "").strip() for one in error_classes())
