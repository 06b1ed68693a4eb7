"""The `gatelens` command."""
