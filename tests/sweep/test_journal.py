"""The journal: every trial is done once, whoever dies, and nothing that was said is lost."""

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from craft.errors import UsageError
from craft.sweep.journal import BrokenJournalError, Journal, LostError
from craft.sweep.repair import recover

PLAN = {"experiment": "char_1m", "seed": 0}
TRIALS = [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}]


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sweep" / "journal.sqlite"


@pytest.fixture
def journal(path, clock):
    with Journal.create(path, PLAN, TRIALS, clock=clock) as made:
        yield made


def test_what_was_written_is_read_by_another(journal, path):
    assert journal.claim("a", [1], 60) == [1]
    journal.tell("a", 1, 5, {"train/loss": 2.0})
    journal.end("a", 1, "finished", 8, {"eval/loss": 1.5, "eval/bits": math.nan}, seconds=3.0)
    with Journal(path) as other:
        waiting, done, _ = other.trials()
        assert other.plan == PLAN
    assert (waiting.status, waiting.changes, waiting.attempts) == ("waiting", {"lr": 0.1}, 0)
    assert (done.status, done.step, done.result["eval/loss"], done.seconds, done.attempts) == ("finished", 8, 1.5, 3.0, 1)
    assert math.isnan(done.result["eval/bits"])
    assert [(number, text) for _, number, text in journal.events()] == [(1, "finished")]


def test_a_trial_is_lent_to_one(journal, path, clock):
    with Journal(path, clock) as other:
        assert journal.claim("a", [0, 1], 60) == [0, 1]
        assert other.claim("b", [0, 1, 2], 60) == [2]
        clock.now += 59
        assert journal.renew("a", 60) == [0, 1]
        clock.now += 59
        assert other.claim("b", [0, 1], 60) == []
        clock.now += 2
        assert other.claim("b", [0, 1], 60) == [0, 1]


def test_who_lost_a_trial_cannot_speak_for_it(journal, path, clock):
    with Journal(path, clock) as other:
        journal.claim("a", [0], 60)
        clock.now += 61
        other.claim("b", [0], 60)
        for act in (lambda: journal.tell("a", 0, 1, {}), lambda: journal.end("a", 0, "finished", 8, {})):
            with pytest.raises(LostError, match="trial 0 is not with a"):
                act()
        assert journal.renew("a", 60) == []
        other.end("b", 0, "finished", 8, {"eval/loss": 1.0})
        with pytest.raises(LostError):  # it has ended: a result is written once
            other.end("b", 0, "failed", 8, {})
    row = journal.trials()[0]
    assert (row.status, row.attempts, row.owner) == ("finished", 2, "b")


def test_what_a_worker_had_is_given_back(journal):
    journal.claim("a", [0, 2], 60)
    assert journal.free("a") == [0, 2]
    assert journal.claim("b", [0, 1, 2], 60) == [0, 1, 2]


def test_a_search_adds_trials(journal):
    assert journal.add([{"lr": 0.4}, {"lr": 0.5}]) == [3, 4]
    assert journal.trials()[4].changes == {"lr": 0.5}


def test_a_status_is_one_of_those_that_there_are(journal):
    journal.claim("a", [0], 60)
    with pytest.raises(ValueError, match="got the status 'done'"):
        journal.end("a", 0, "done", 1, {})


def test_what_fails_half_way_is_not_there(journal):
    with pytest.raises(TypeError):
        journal.add([{"lr": 0.4}, {"lr": object()}])
    assert len(journal.trials()) == 3
    assert journal.add([{"lr": 0.4}]) == [3]


WORKER = """
import sys, time, random
from pathlib import Path
from craft.sweep.journal import Journal, LostError
path, name = Path(sys.argv[1]), sys.argv[2]
draw = random.Random(name)
with Journal(path) as journal:
    while True:
        rows = [row.number for row in journal.trials() if row.status in ("waiting", "running")]
        if not rows:
            break
        draw.shuffle(rows)
        for number in journal.claim(name, rows[:3], float(sys.argv[3])):
            time.sleep(draw.uniform(0, 0.004))
            try:
                journal.tell(name, number, 1, {"loss": 1.0})
                journal.end(name, number, "finished", 2, {"loss": float(number)})
            except LostError:
                pass
"""


def start(path, name, seconds):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(path), name, str(seconds)], stderr=subprocess.PIPE, text=True)


def test_many_workers_do_each_trial_once(path):
    Journal.create(path, PLAN, [{"lr": number} for number in range(160)]).close()
    workers = [start(path, f"w{place}", 60) for place in range(6)]
    said = [worker.communicate(timeout=120)[1] for worker in workers]
    assert said == [""] * 6
    with Journal(path) as journal:
        rows, events = journal.trials(), journal.events()
    assert [row.result["loss"] for row in rows] == list(range(160))
    assert all((row.status, row.attempts) == ("finished", 1) for row in rows)
    assert sorted(number for _, number, _ in events if number is not None) == list(range(160))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_workers_that_are_killed_lose_nothing(path):
    """A worker is killed again and again; what was said to have ended stays, and all is done in the end."""
    Journal.create(path, PLAN, [{"lr": number} for number in range(120)]).close()
    draw = random.Random(3)
    ended: set[int] = set()
    for attempt in range(12):
        worker = start(path, f"w{attempt}", 0.05)
        time.sleep(draw.uniform(0.15, 0.35))
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
        with Journal(path) as journal:
            now = {row.number for row in journal.trials() if row.status == "finished"}
        assert ended <= now
        ended = now
    worker = start(path, "last", 0.05)
    assert worker.communicate(timeout=60)[1] == ""
    with Journal(path) as journal:
        rows, events = journal.trials(), journal.events()
    assert all(row.status == "finished" and row.result == {"loss": float(row.number)} for row in rows)
    assert sorted(number for _, number, _ in events if number is not None) == list(range(120))


def test_a_journal_that_is_not_there_or_not_one(tmp_path):
    with pytest.raises(UsageError, match=r"as a sweep, but it has no journal\.sqlite"):
        Journal(tmp_path / "journal.sqlite")
    (tmp_path / "journal.sqlite").write_bytes(b"no database at all, but some text of more than a hundred bytes" * 9)
    with pytest.raises(BrokenJournalError, match=r"is damaged .*craft sweep repair"):
        Journal(tmp_path / "journal.sqlite")


def test_a_newer_format_is_refused(journal, path):
    journal._base.execute("UPDATE about SET value = '2' WHERE name = 'format'")
    with pytest.raises(BrokenJournalError, match="has format 2; this Craft reads 1"):
        Journal(path)


def test_a_damaged_journal_is_named_and_what_can_be_read_is_saved(path):
    trials = [{"lr": number, "note": "x" * 400} for number in range(200)]
    with Journal.create(path, PLAN, trials) as journal:
        journal.claim("a", range(200), 60)
        for number in range(0, 200, 2):
            journal.end("a", number, "finished", 8, {"eval/loss": float(number)})
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2 // 4096 * 4096
    damaged[middle : middle + 4096] = os.urandom(4096)
    path.write_bytes(damaged)
    with pytest.raises(BrokenJournalError, match=r"journal\.sqlite is damaged"):
        Journal(path)
    target, number, ended = recover(path)
    assert path.read_bytes() == damaged  # it stays as it is
    assert number > 150
    assert ended >= number // 2 - 10
    with Journal(target) as saved:
        assert saved.plan == PLAN
        rows = saved.trials()
    assert len(rows) == number
    assert all(row.changes == trials[row.number] for row in rows)
    assert all(row.result == {"eval/loss": float(row.number)} for row in rows if row.status == "finished")


def test_a_full_disk_is_said_and_loses_nothing(journal, path):
    journal._base.execute("PRAGMA max_page_count = 12")
    with pytest.raises(OSError, match=r"could not be written .*free space"):
        journal.add([{"note": "x" * 9000} for _ in range(50)])
    assert len(journal.trials()) == 3
    with Journal(path) as other:
        assert other.claim("a", [0], 60) == [0]
