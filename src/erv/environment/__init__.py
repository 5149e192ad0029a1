"""Which servers this workspace talks to, whose they are, and the processes that use them."""

from erv.environment.environment import (
    CONNECTED_FILE,
    STACK_FILE,
    STATE,
    Environment,
    load_environment,
    read_stack_file,
)
from erv.environment.processes import (
    child_environment,
    hand_over_token,
    isolate,
    keep_private,
    shell_lines,
    silence_telemetry,
)
from erv.environment.servers import (
    command_for,
    connected_servers,
    connection_lines,
    is_shared,
    remedy_for,
    shared_servers,
    unset_variables,
)

__all__ = [
    "CONNECTED_FILE",
    "STACK_FILE",
    "STATE",
    "Environment",
    "child_environment",
    "command_for",
    "connected_servers",
    "connection_lines",
    "hand_over_token",
    "is_shared",
    "isolate",
    "keep_private",
    "load_environment",
    "read_stack_file",
    "remedy_for",
    "shared_servers",
    "shell_lines",
    "silence_telemetry",
    "unset_variables",
]
