"""The page on which `dvc plots show` and `dvc plots diff` draw, with the libraries that draw in it.

DVC's own page loads Vega from the internet. Ours has it inside, so plots are drawn without a connection, and
nothing is fetched from a server that nobody named. `make install` writes it.

    python -m erv.plots.page
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from erv.errors import DataError
from erv.files import write_text

PAGE = Path(".dvc/tmp/plots.html")
_VEGA_LITE = "6.4"  # the templates in .dvc/plots are written for version 6
_SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DVC plots</title>
{{refresh_tag}}
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 1rem; color: #1f2733; background: #fff; }}
body > div {{ overflow-x: auto; margin: 0 0 2rem; }}
</style>
<script>(() => {{ {library} }})();</script>
</head>
<body>
{{plot_divs}}
</body>
</html>
"""


def write_page(path: Path = PAGE) -> None:
    """Writes the page; DVC fills in `{plot_divs}` and `{refresh_tag}`."""
    import vl_convert  # type: ignore[import-not-found, unused-ignore]

    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", _VEGA_LITE)
    for placeholder in ("{plot_divs}", "{scripts}", "{refresh_tag}", "</script"):
        if placeholder in library:
            raise DataError(f"{path}: Vega's code has {placeholder} in it, which DVC or a browser would take")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(_SHELL.format(library=library), path)


def main() -> int:
    """Writes the page of the repository in the current folder, and has DVC use it."""
    write_page()
    name = PAGE.relative_to(".dvc")
    command = [sys.executable, "-m", "dvc", "config", "--local", "plots.html_template", str(name)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
