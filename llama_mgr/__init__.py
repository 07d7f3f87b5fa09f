"""llama-mgr: build any llama.cpp into named instances, make quants, serve them."""

__version__ = "0.1.0"
