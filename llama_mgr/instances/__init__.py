"""Names that point at builds, with their history."""
