"""The lines that W&B gets: from the record as from the run."""

from craft.track import Info, Jsonl, Many, lines


class Listening:
    """A sink that keeps its lines."""

    def __init__(self):
        self.lines = []

    def start(self, info):
        pass

    def report(self, report):
        self.lines.append(lines.report(report))

    def sample(self, step, prompt, text):
        self.lines.append(lines.sample(step, prompt, text))

    def message(self, text):
        pass

    def finish(self, status, summary):
        pass


def test_the_record_gives_the_lines_of_the_run(drive, tmp_path):
    live = Listening()
    drive(Many([Jsonl(), live]), tmp_path)
    by_step = sorted(live.lines, key=lambda line: (line["step"], line["kind"] == "report"))
    assert repr(lines.recorded(tmp_path)) == repr(by_step)  # nan differs from itself
    assert repr(lines.recorded(tmp_path, last=2)) == repr(by_step[:2])
    assert lines.recorded(tmp_path / "nowhere") == []


def test_a_run_starts_with_all_that_names_it(tmp_path):
    info = Info(name="run", directory=tmp_path, config={"lr": 1.0}, steps=4, step=2, project="p", group="g")
    assert lines.start(info, "offline", "abc") == {
        "kind": "start", "mode": "offline", "id": "abc", "name": "run", "project": "p", "group": "g",
        "config": {"lr": 1.0}, "directory": str(tmp_path.resolve()), "after": 2,
    }  # fmt: skip
