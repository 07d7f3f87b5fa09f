"""Build any llama.cpp: sources, recipes, toolchains, CMake, immutable builds."""
