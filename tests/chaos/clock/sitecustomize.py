"""Shifts the clock of each Python process that starts with this folder on its path.

`ERV_CHAOS_CLOCK=SHIFT,AFTER` moves the wall clock by SHIFT seconds, AFTER seconds after the process starts.
"""

import os
import threading

if "ERV_CHAOS_CLOCK" in os.environ:
    import time_machine

    _shift, _after = (float(number) for number in os.environ["ERV_CHAOS_CLOCK"].split(","))

    def _jump() -> None:
        import time

        time_machine.travel(time.time() + _shift, tick=True).start()

    if _after <= 0:
        _jump()
    else:
        _timer = threading.Timer(_after, _jump)
        _timer.daemon = True
        _timer.start()
