"""As old as the tree around it."""
