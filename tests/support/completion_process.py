"""A process that generates slowly: `tests.support.completion_process CLIPS POLICY OUT`."""

import sys
import time
from pathlib import Path

from erv.completions import answering
from tests.unit.completions.test_completions import answers


def main(clips: Path, policy: Path, out: Path) -> None:
    plainly = answering.generate

    def slowly(*arguments, **options):
        texts = plainly(*arguments, **options)
        print("generated", flush=True)
        time.sleep(1.0)
        return texts

    answering.generate = slowly
    answers(clips, policy, out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
