"""Running llama-server."""
