"""One reader per official layout."""
