"""The page's template and style."""
