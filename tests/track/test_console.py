"""What people see, on a terminal, in a pipe, and after the pipe is closed."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from craft.track import Console, Info, Report
from craft.track.console import Progress

HOUSE = str(Path(__file__).parents[2])
RUN = """
import time
from pathlib import Path
from craft.track import Console, Info, Report
console = Console()
console.start(Info(name="a-run", directory=Path("."), config={}, steps=100_000))
console.message("first [dim] \\x1b[2J")
console.status("compiling the step")
time.sleep(0.3)
for step in range(0, 100_001, 10_000):
    metrics = {"train/loss": 1.2345, "train/bits": 1.781, "eval/loss": 1.5}
    console.report(Report(step, 0, metrics, {"tokens_per_second": 123456.0, "memory_mb": 1234.5}))
    time.sleep(0.02)
console.sample(5, "def ", "[red]x[/red] :smile: \\x1b[31mred")
print("from elsewhere")
console.finish("finished", {"eval/loss": 1.5})
Path("done").touch()
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": HOUSE, "TERM": "xterm-256color", "COLUMNS": "80", "PYTHONUTF8": "1", **more}


def test_a_pipe_gets_plain_lines_of_80_columns(tmp_path):
    run = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\r" not in run.stdout
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "\n0/100000  loss 1.2345 nats  1.7810 bits  held-out 1.5000  123k tok/s  1234 MB\n" in run.stdout
    assert "\n100000/100000  loss 1.2345 nats  1.7810 bits  held-out 1.5000  123k tok/s\n" in run.stdout
    assert "    [red]x[/red] :smile: \\x1b[31mred\n" in run.stdout


def test_a_terminal_gets_a_bar_and_literal_samples(tmp_path):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    run = subprocess.Popen([sys.executable, "-c", RUN], cwd=tmp_path, env=environment(), stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # Linux says so when the last writer is gone
        pass
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert run.wait() == 0
    assert "compiling the step" in text
    assert "a-run" in text
    assert "━" in text
    assert "    [red]x[/red] :smile: \\x1b[31mred" in text
    assert "from elsewhere" in text
    assert "first [dim] \\x1b[2J" in text
    assert b"\x1b[?25l" not in shown  # the cursor is never hidden
    assert max(len(line) for line in re.split(r"[\r\n]+", text)) <= 80


def test_a_dumb_terminal_is_no_terminal(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setenv("TERM", "dumb")
    show(Console(screen))
    assert screen.getvalue() == "1/10  loss 2.0000 nats\nfinished after 1 update\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])  # the error comes from write or from flush
@pytest.mark.parametrize("terminal", [False, True])
def test_a_closed_output_stops_nothing(tmp_path, terminal, unbuffered):
    code = "import sys; sys.stdout.isatty = lambda: True\n" + RUN if terminal else RUN
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED=unbuffered),
        stdout=-1,
        stderr=-1,
        text=True,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.readline()
    run.stdout.close()
    assert run.stderr.read() == ""
    run.stderr.close()
    assert run.wait() == 0
    assert (tmp_path / "done").exists()


def test_an_output_that_lacks_letters_gets_escapes():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    show(Console(file), "naïve")
    assert b"na\\xefve" in raw.getvalue()


def test_no_output_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    show(Console(), "hello")


def test_plain_lines_keep_a_pace_but_never_drop_a_held_out_loss():
    now, out = [0.0], io.StringIO()
    console = Console(out, clock=lambda: now[0])
    console.start(Info(name="run", directory=Path(), config={}, steps=1000))
    for step in range(1, 101):
        now[0] += 0.1
        console.report(Report(step, 0, {"train/loss": 2.0, **({"eval/loss": 3.0} if step == 15 else {})}))
    lines = out.getvalue().splitlines()
    assert 9 <= len(lines) <= 12
    assert any("held-out" in line and line.startswith("15/") for line in lines)


def test_time_left_follows_the_clock_and_not_the_compilation():
    now = [0.0]
    progress = Progress(Info(name="run", directory=Path(), config={}, steps=100, step=50), lambda: now[0])
    assert progress.left is None
    now[0] = 40.0
    progress.status = "compiling"
    progress.advance(51)
    assert progress.status == ""
    now[0] = 49.0
    progress.advance(60)
    assert progress.left == pytest.approx(40.0)


def test_time_left_forgets_a_slow_start():
    now = [0.0]
    progress = Progress(Info(name="run", directory=Path(), config={}, steps=1000), lambda: now[0])
    progress.advance(1)
    for step in range(10, 201, 10):
        now[0] += 60.0 if step == 10 else 1.0
        progress.take(Report(step, 0, {}))
    assert progress.left is not None
    assert 80.0 < progress.left < 100.0  # the mean since the start would say 316


def test_time_left_grows_while_nothing_happens():
    now = [0.0]
    progress = Progress(Info(name="run", directory=Path(), config={}, steps=100), lambda: now[0])
    progress.advance(10)
    now[0] = 10.0
    progress.take(Report(20, 0, {}))
    assert progress.left == pytest.approx(80.0)
    now[0] = 20.0
    assert progress.left == pytest.approx(160.0)


def test_a_task_without_a_training_loss_shows_its_first_numbers():
    out = io.StringIO()
    show(Console(out), metrics={"real": 1.0, "fake\x1b": 2.0})
    assert out.getvalue().startswith("1/10  real 1  fake\\x1b 2\n")


def show(console, message="", metrics=None):
    console.start(Info(name="run", directory=Path(), config={}, steps=10))
    if message:
        console.message(message)
    console.report(Report(1, 0, metrics or {"train/loss": 2.0}))
    console.finish("finished", {})
