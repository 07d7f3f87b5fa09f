"""Writes `recipes/recipe.schema.json` from the shapes: `python -m tests.tools.recipe_schema`."""

import json
from pathlib import Path

from llama_mgr.build.recipe import schema

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "recipes" / "recipe.schema.json"

if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(schema(), indent=1) + "\n")
