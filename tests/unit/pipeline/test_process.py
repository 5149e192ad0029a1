"""No process of a stage outlives the pipeline, whichever link of the chain is killed, and however."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# What stands for a stage: dies with its parent, notes its pid, tells of SIGTERM, else goes on for ever.
STAGE = """
import os, signal, sys, time
from pathlib import Path
from erv.pipeline.process import die_with_parent
die_with_parent()
folder = Path(sys.argv[1])
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: (folder.joinpath("terminated").touch(), sys.exit(7)))
folder.joinpath("pid.tmp").write_text(str(os.getpid()))
folder.joinpath("pid.tmp").rename(folder / "pid")
while True:
    time.sleep(0.05)
"""
# What stands for dvc: starts the command through a shell that stays, and waits for it.
RUNNER = """
import subprocess, sys
sys.exit(255 if subprocess.call(["/bin/sh", "-c", sys.argv[1] + "; exit $?"]) else 0)
"""


@pytest.fixture
def chain(tmp_path: Path):
    """Starts flow -> guard -> runner -> shell -> stage; yields (flow, guard, stage) once the stage runs."""
    started: list[int] = []

    def start(*flags: str, grace: float = 5.0):
        (tmp_path / "stage.py").write_text(STAGE)
        (tmp_path / "runner.py").write_text(RUNNER)
        command = " ".join([sys.executable, str(tmp_path / "stage.py"), str(tmp_path), *flags])
        guard = [sys.executable, "-m", "erv.pipeline.guard", "--grace", str(grace), "--"]
        flow = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import subprocess,sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()",
                *guard,
                sys.executable,
                str(tmp_path / "runner.py"),
                command,
            ]
        )
        started.append(flow.pid)
        wait_for(lambda: (tmp_path / "pid").exists())
        stage = psutil.Process(int((tmp_path / "pid").read_text()))
        started.append(stage.pid)
        return flow, psutil.Process(flow.pid).children()[0], stage

    yield start
    for pid in started:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_killing_the_flow_ends_the_stage_gently(chain, tmp_path: Path) -> None:
    flow, guard, stage = chain()
    flow.kill()
    wait_for(lambda: gone(stage) and gone(guard))
    assert (tmp_path / "terminated").exists(), "the stage should have had a chance to close its run"


def test_killing_the_flow_ends_a_stage_that_ignores_sigterm(chain, tmp_path: Path) -> None:
    flow, guard, stage = chain("deaf", grace=0.3)
    flow.kill()
    wait_for(lambda: gone(stage) and gone(guard))
    assert not (tmp_path / "terminated").exists()


def test_killing_the_guard_ends_all(chain) -> None:
    flow, guard, stage = chain()
    runner = guard.children()[0]
    guard.kill()
    wait_for(lambda: gone(stage) and gone(runner))
    flow.wait(60)


def test_killing_the_runner_ends_the_stage_behind_its_shell(chain) -> None:
    _flow, guard, stage = chain()
    guard.children()[0].kill()
    wait_for(lambda: gone(stage) and gone(guard))


def test_guard_forwards_sigterm(chain, tmp_path: Path) -> None:
    flow, guard, stage = chain()
    guard.send_signal(signal.SIGTERM)
    flow.wait(60)
    assert gone(stage)
    assert (tmp_path / "terminated").exists()


@pytest.mark.parametrize(
    ("command", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 128 + signal.SIGKILL)]
)
def test_guard_passes_the_exit_code_on(command: str, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "erv.pipeline.guard", "--", "/bin/sh", "-c", command], stdin=subprocess.PIPE
    )
    assert process.wait(60) == code


def test_guard_leaves_no_helper_behind(tmp_path: Path) -> None:
    helper = f"(sleep 60 & echo $! > {tmp_path}/helper); exit 0"
    process = subprocess.Popen(
        [sys.executable, "-m", "erv.pipeline.guard", "--", "/bin/sh", "-c", helper], stdin=subprocess.PIPE
    )
    assert process.wait(60) == 0
    pid = int((tmp_path / "helper").read_text())
    wait_for(lambda: not psutil.pid_exists(pid) or gone(psutil.Process(pid)))


def test_a_stage_started_by_hand_survives_its_shell(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    environment = {k: v for k, v in os.environ.items() if k not in ("ERV_GUARD_PID", "DVC_ROOT")}
    command = f"{sys.executable} {tmp_path}/stage.py {tmp_path} & exit 0"
    subprocess.run(["/bin/sh", "-c", command], env=environment, check=True)
    wait_for(lambda: (tmp_path / "pid").exists())
    stage = psutil.Process(int((tmp_path / "pid").read_text()))
    try:
        time.sleep(0.3)
        assert not gone(stage)
    finally:
        stage.kill()


def test_workers_die_with_the_process_that_made_them(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(
        "import os, sys, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from pathlib import Path\n"
        "from erv.pipeline.process import die_with_parent\n"
        "def work(folder):\n"
        "    Path(folder, 'pid.tmp').write_text(str(os.getpid()))\n"
        "    os.replace(Path(folder, 'pid.tmp'), Path(folder, 'pid'))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, mp_context=get_context('spawn'), initializer=die_with_parent)\n"
        "    pool.submit(work, sys.argv[1]).result()\n"
    )
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    wait_for(lambda: (tmp_path / "pid").exists())
    worker = psutil.Process(int((tmp_path / "pid").read_text()))
    process.kill()
    process.wait(60)
    wait_for(lambda: gone(worker))


def test_nothing_survives_in_a_session_of_its_own(tmp_path: Path) -> None:
    """It was left alone: only the process group of the command was killed."""
    hidden = "import os, subprocess, sys; subprocess.Popen(['sleep', '300'], start_new_session=True)"
    script = f"{hidden}; print(os.getpid(), flush=True)"
    before = {process.pid for process in psutil.process_iter()}
    command = [sys.executable, "-m", "erv.pipeline.guard", "--", sys.executable, "-c", script]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE)  # kept open: the guard stops when it closes
    assert guard.wait(60) == 0
    sleeping = [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in before and process.info["cmdline"] == ["sleep", "300"]
    ]
    assert sleeping == []


def test_a_stop_reaches_a_session_of_its_own(tmp_path: Path) -> None:
    orphan = (
        "import os, subprocess, sys; "
        "p = subprocess.Popen(['sleep', '301'], start_new_session=True); "
        "open(sys.argv[1], 'w').write(str(p.pid)); import time; time.sleep(300)"
    )
    pid = tmp_path / "pid"
    command = [sys.executable, "-m", "erv.pipeline.guard", "--grace", "0.3", "--"]
    guard = subprocess.Popen([*command, sys.executable, "-c", orphan, str(pid)], stdin=subprocess.PIPE)
    wait_for(lambda: pid.exists() and pid.read_text())
    hidden = psutil.Process(int(pid.read_text()))
    guard.stdin.close()
    wait_for(lambda: gone(hidden))
    assert guard.wait(30) != 0
