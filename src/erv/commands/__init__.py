"""One module per command of `erv`; each has a click command named `command` and imports its work lazily."""
