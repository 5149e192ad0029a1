"""An HTTP API for programs: what a published version says about clips, whole or as it is written."""
