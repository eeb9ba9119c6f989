"""Runs that were recorded by the real sinks, without a training; and a browser."""

import html.parser
import math
import shutil
import subprocess
from collections import Counter
from typing import Any

import attrs
import pytest

from craft import record, report, track

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)

VALUES: dict[str, Any] = {
    "lr": 0.02,
    "steps": 40,
    "seed": 0,
    "model": {"width": 16, "depth": 2, "pattern": [{"kind": "Attention", "heads": 2}, {"kind": "FeedForward"}]},
    "optimizer": {"decay": 0.1},
    "schedule": {"decay": 0.0},
    "data": {"source": "stdlib"},
}


def loss(step, seed, lr):
    """Make up a loss that falls, the faster the higher lr is, with some noise of its seed."""
    return 4 * math.exp(-20 * lr * step / 40) + 0.9 + 0.05 * math.sin(17.0 * step + 5 * seed) + 0.01 * seed


def configuration(values, fingerprint="f00d", model=None):
    data = {
        "experiment": {"module": "experiments.char_1m", "name": "char_1m", "values": values},
        "run": {"precision": "fp32", "device": "cpu", "out": None, "track": {"wandb": "off"}},
        "steps": values["steps"],
        "seed": values["seed"],
        "data": {"name": "stdlib", "fingerprint": fingerprint, "corpus": f"corpus of {fingerprint}"},
        "code": "c0de" * 16,
        "versions": {"torch": "2.13.0"},
    }
    return data if model is None else data | {"model": model}


@pytest.fixture
def make(tmp_path):
    """Record a run below the test's directory; `changes` are fields of the experiment by path."""

    def run(name, *, upto=None, held=True, tokens=100, tokenizer="abc", samples=("the cat",), metrics=None, **more):
        facts = {key: more.pop(key) for key in ("fingerprint", "model") if key in more}
        values = _changed(VALUES, more)
        directory = tmp_path / name
        directory.mkdir(parents=True)
        config = configuration(values, **facts)
        record.write(directory, config, None if tokenizer is None else {"kind": "characters", "characters": tokenizer})
        sink = track.Jsonl()
        sink.start(track.Info(name=name, directory=directory, config=config, steps=values["steps"]))
        last = values["steps"] if upto is None else upto
        for step in range(2, last + 1, 2):
            value = loss(step, values["seed"], values["lr"])
            numbers = {"train/loss": value, "train/grad_norm": 1 / step, "train/lr": values["lr"] * (1 - step / 100)}
            if held and (step % 10 == 0 or step == last):
                numbers |= {"eval/loss": value + 0.1, "eval/accuracy": 1 / value, **(metrics or {})}
            timings = {"seconds": step * 0.5, "tokens_per_second": 2000.0 + step, "memory_mb": 500.0 + step}
            sink.report(track.Report(step, step * tokens, numbers, timings))
        for number, text in enumerate(samples):
            sink.sample(10 * (number + 1), "def ", text)
        sink.finish("finished", {})
        return directory

    return run


def _changed(values, changes):
    found = dict(values)
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        found[head] = _changed(found[head], {rest: value}) if rest else value
    return found


@pytest.fixture
def seen(make):
    """Compare some runs as `craft compare` does."""

    def compare(*directories):
        return report.compare([report.read(directory) for directory in directories])

    return compare


@attrs.frozen
class Dom:
    """What a browser made of a page."""

    root: dict[str, str | None]
    """Attributes of <html>."""
    tags: Counter
    """How often an element stands there, by its name and by name.class."""
    text: str
    """All the text, but for that of scripts and styles."""
    log: str
    """What the browser said."""


class _Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.root: dict[str, str | None] = {}
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []
        self.open = ""

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.root = found if tag == "html" else self.root
        self.open = tag
        self.tags.update([tag, *(f"{tag}.{one}" for one in (found.get("class") or "").split())])

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        if self.open not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="session")
def browse(tmp_path_factory):
    """Open a page in a real browser, and read what became of it."""
    if BROWSER is None:
        pytest.skip("no Chromium here to open the page with; Debian has it as the package chromium")
    profile = tmp_path_factory.mktemp("profile")

    def visit(path, *flags, query="", width=1200, height=900):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--no-first-run"]
        command += ["--enable-logging=stderr", "--v=0", f"--window-size={width},{height}", "--virtual-time-budget=3000", *flags]
        address = path.as_uri() + query
        ended = subprocess.run([*command, "--dump-dom", address], capture_output=True, timeout=120)
        reader = _Reader()
        reader.feed(ended.stdout.decode())
        return Dom(reader.root, reader.tags, "".join(reader.text), ended.stderr.decode(errors="replace"))

    return visit
