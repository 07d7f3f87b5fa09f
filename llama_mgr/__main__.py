"""`python -m llama_mgr` is `llama-mgr`."""

from llama_mgr.cli.app import main

if __name__ == "__main__":
    main()
