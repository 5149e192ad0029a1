"""One module per `erv` command. Each defines a click command named `command` and imports its code lazily."""
