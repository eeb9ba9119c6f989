"""The page in a real browser: it draws, reports no error, fits a phone, follows the reader's colours."""

import json
import re

import pytest

from craft import report
from craft.report.average import average
from craft.report.page import _ASSETS, page

_HARM = "document.documentElement.dataset.pwned=1"
EVIL = f"</script><script>{_HARM}</script><img src=x onerror={_HARM}>"


@pytest.fixture
def comparison(make, seen):
    """Compare three seeds, another configuration, and one that is still running."""
    flops = {"model": {"parameters": 10**6, "flops_per_step": 1e9}}
    runs = [make(f"seed{n}", seed=n, **flops) for n in range(3)]
    return seen(*runs, make("other", lr=0.04, samples=("one", "two"), **flops), make("half", lr=0.01, upto=20))


@pytest.fixture
def written(comparison, tmp_path):
    """Write the page of the comparison."""
    report.save(comparison, tmp_path / "page.html")
    return tmp_path / "page.html"


def faultless(dom):
    """Assert that nothing went wrong in a page."""
    assert "data-error" not in dom.root
    assert "data-blocked" not in dom.root
    assert "Uncaught" not in dom.log


def changed(path, program):
    """Make a page that runs a program of the test beside its own; a browser that only dumps the page shows no frames."""
    frames = "<script>requestAnimationFrame = (callback) => setTimeout(callback, 1);</script>"
    text = re.sub(r"<meta http-equiv[^>]*>", frames, path.read_text(encoding="utf-8"))
    other = path.with_name("changed.html")
    other.write_text(text.replace("</body>", f"<script>{program}</script></body>"), encoding="utf-8")
    return other


def test_the_page_draws_every_curve(browse, written):
    dom = browse(written, query="?selftest")
    faultless(dom)
    panels = 4
    assert dom.tags["path.curve"] == 3 * 2 + 3 * panels
    assert dom.tags["path.band"] == 2 + panels
    assert dom.tags["div.plot"] == 1 + panels
    assert int(dom.root["data-drawn"]) == dom.tags["path.curve"]
    assert dom.tags["option"] == 2 + 4  # loss and accuracy, against four axes
    assert "lr=0.02" in dom.text
    assert dom.tags["circle.dot"] == 4 + 4 + 2


def test_a_page_of_one_run_without_anything_but_a_loss(browse, make, tmp_path):
    run = make("bare", upto=2, held=False, tokens=0, samples=(), tokenizer=None)
    (run / "timings.jsonl").unlink()
    (run / "metrics.jsonl").write_text('{"step": 2, "tokens": 0, "train/loss": 1.5}\n', encoding="utf-8")
    report.write_page([run], run / "report.html")
    dom = browse(run / "report.html")
    faultless(dom)
    assert (dom.tags["path.curve"], dom.tags["circle.dot"], dom.tags["option"]) == (1, 1, 1)
    assert dom.tags["ul.legend"] == 0


def test_what_was_found_in_detail_is_drawn(browse, make, seen, tmp_path):
    run = make("a")
    places = [{"loss": 2 + 2 / place, "weight": 10.0} for place in range(1, 65)]
    bins = [{"weight": 64.0, "confidence": part / 10, "accuracy": part / 12} for part in range(1, 11)]
    means = {"weight": 640.0, "loss": 2.2, "accuracy": 0.4, "calibration_error": 0.05, "frequencies": []}
    found = {"validation": {"step": 40, "detail": {**means, "positions": places, "bins": bins}}}
    (run / "evaluation.json").write_text(json.dumps(found), encoding="utf-8")
    report.save(seen(run), tmp_path / "page.html")
    dom = browse(tmp_path / "page.html", query="?selftest")
    faultless(dom)
    assert "Where it loses" in dom.text
    assert dom.tags["path.curve"] == 2 + 4 + 2  # loss, panels, and the two charts of the detail


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_the_page_is_no_wider_than_the_window(browse, written, width):
    frame = written.with_name("frame.html")  # a browser's own window may not be as narrow as a phone
    listen = "onmessage = (event) => Object.assign(document.documentElement.dataset, event.data);"
    tell = "parent.postMessage({...document.documentElement.dataset}, '*');"
    inner = changed(written, tell).name
    frame.write_text(
        f'<!doctype html><html><body><script>{listen}</script><iframe width="{width}" height="9000" style="border:0" '
        f'src="{inner}?selftest"></iframe></body></html>',
        encoding="utf-8",
    )
    root = browse(frame).root
    assert (root["data-width"], root["data-overflow"]) == (str(width), "0")


def test_a_page_that_is_too_wide_is_seen(browse, written):
    wide = written.with_name("wide.html")
    text = written.read_text(encoding="utf-8").replace("<main>", "<main><pre>" + "x" * 4000 + "</pre>")
    wide.write_text(text, encoding="utf-8")
    assert int(browse(wide, query="?selftest").root["data-overflow"]) > 0


def test_an_error_in_the_page_is_seen(browse, written):
    dom = browse(changed(written, "nothing.at.all"))
    assert "nothing is not defined" in dom.root["data-error"]
    assert "Uncaught" in dom.log


def test_the_page_follows_the_reader_into_the_dark(browse, written):
    light = browse(written, "--blink-settings=preferredColorScheme=1", query="?selftest").root
    dark = browse(written, "--blink-settings=preferredColorScheme=0", query="?selftest").root
    assert (light["data-dark"], dark["data-dark"]) == ("false", "true")
    assert light["data-background"] == "rgb(255, 255, 255)"
    assert dark["data-background"] == "rgb(22, 22, 22)"


def test_what_a_run_has_written_is_text(browse, make, seen, tmp_path):
    more = {"samples": (EVIL,), "metrics": {f"eval/{EVIL}": 1.0}, "data.source": EVIL}
    found = seen(make("a", **more), make("b", **{**more, "data.source": "x"}))
    path = tmp_path / "page.html"
    report.save(found, path)
    dom = browse(path)
    faultless(dom)
    assert "data-pwned" not in dom.root
    assert dom.tags["img"] == 0
    assert EVIL in dom.text
    bare = page(found).replace("\\u003c", "<").replace("\\u003e", ">")
    path.write_text(re.sub(r"<meta http-equiv[^>]*>", "", bare), encoding="utf-8")
    assert "data-pwned" in browse(path).root  # what the escaping of the data is for
    path.write_text(bare, encoding="utf-8")
    assert "data-pwned" not in browse(path).root  # and what the policy is for


EXERCISE = """
const out = {};
const curves = () => document.querySelectorAll("path.curve").length;
const settle = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
const choose = async (node, value, kind) => { node.value = value; node.dispatchEvent(new Event(kind)); await settle(); };
const label = (at) => [...document.querySelectorAll(".axis .title")][at].textContent;
(async () => {
  const [subject, axis] = document.querySelectorAll("select");
  for (const value of ["tokens", "flops", "clock/seconds"]) {
    await choose(axis, value, "change");
    out[value] = [curves(), label(0)];
  }
  await choose(axis, "step", "change");
  await choose(document.querySelector("input[type=range]"), "0.9", "input");
  out.raw = document.querySelectorAll("path.raw").length;
  await choose(document.querySelector("input[type=range]"), "0", "input");
  const boxes = [...document.querySelectorAll("input[type=checkbox]")];
  out.boxes = [];
  for (const box of boxes) {
    box.click(); await settle();
    out.boxes.push([box.parentNode.textContent, curves()]);
    box.click(); await settle();
  }
  const buttons = document.querySelectorAll(".legend button");
  buttons[0].click(); await settle(); out.hidden = curves(); buttons[0].click(); await settle();
  buttons[1].dispatchEvent(new MouseEvent("click", {shiftKey: true, bubbles: true})); await settle(); out.only = curves();
  buttons[1].dispatchEvent(new MouseEvent("click", {shiftKey: true, bubbles: true})); await settle(); out.all = curves();
  await choose(subject, "accuracy", "change");
  out.accuracy = curves();
  await choose(subject, "loss", "change");
  const plot = document.querySelector(".plot"), tip = document.querySelector(".tip");
  plot.focus();
  plot.dispatchEvent(new KeyboardEvent("keydown", {key: "End"}));
  out.tip = tip.innerText; out.shown = !tip.hidden;
  plot.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", shiftKey: true}));
  out.before = tip.innerText;
  plot.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
  out.escaped = tip.hidden;
  const box = plot.getBoundingClientRect();
  const at = {clientX: box.left + box.width / 2, clientY: box.top + 9, pointerType: "mouse"};
  plot.dispatchEvent(new PointerEvent("pointermove", at));
  out.pointed = tip.innerText;
  plot.dispatchEvent(new PointerEvent("pointerleave", {pointerType: "mouse"}));
  out.left = tip.hidden;
  document.documentElement.dataset.result = JSON.stringify(out);
})();
"""


def test_everything_that_can_be_turned(browse, comparison, written):
    dom = browse(changed(written, EXERCISE))
    faultless(dom)
    out = json.loads(dom.root["data-result"])
    assert out["tokens"] == [18, "tokens"]
    assert out["flops"] == [12, "FLOPs"]  # the one that is still running does not know its cost
    assert out["clock/seconds"] == [18, "wall time, seconds"]
    assert out["raw"] == 2 + 2 * 4  # single runs show what was smoothed
    assert out["boxes"][:4] == [["log x", 18], ["log y", 18], ["train", 15], ["held out", 15]]
    assert out["boxes"][4:] == [["height without the first tenth", 18], ["mean of seeds, 95 % band", 30]]
    assert (out["hidden"], out["only"], out["all"], out["accuracy"]) == (12, 6, 18, 15)
    assert (out["shown"], out["escaped"], out["left"]) == (True, True, True)
    last = comparison.groups[0].final("eval/loss")
    assert f"lr=0.02, held out\t{float(f'{last.mean:.5g}')} ±" in out["tip"]
    assert out["tip"].startswith("40 updates")
    assert out["before"].startswith("36 updates")
    assert out["pointed"].startswith(("20 updates", "22 updates"))


def computed(browse, folder, expression, *names):
    """Return what an expression gives in the browser, with some of the page's files loaded."""
    program = "".join((_ASSETS / name).read_text(encoding="utf-8") for name in names)
    path = folder / "computed.html"
    answer = f"document.documentElement.dataset.result = JSON.stringify({expression});"
    path.write_text(f"<!doctype html><html><body><script>{program}{answer}</script></body></html>", encoding="utf-8")
    return json.loads(browse(path).root["data-result"])


def test_numbers_and_ticks(browse, tmp_path):
    expression = """{
        even: ticks([0.93, 4.4], false, 7), decades: ticks([1, 5000], true, 6), short: ticks([1, 4], true, 5),
        words: [0, 950, 12345, 4560000, 1.2e15, 0.00012, 0.97504].map(compact),
        there: scale([1, 100], [0, 200], true).to(10), back: scale([1, 100], [0, 200], true).from(100),
        domain: domainOf([2, 4], false, 0.1), single: domainOf([3], false, 0), none: domainOf([], false, 0),
        units: [100, 1000, 100000].map((one) => timeUnit(one)[0]),
    }"""
    found = computed(browse, tmp_path, expression, "scale.js")
    assert found["even"] == [1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert found["decades"] == [1, 10, 100, 1000]
    assert found["short"] == [1, 2, 3, 4]
    assert found["words"] == ["0", "950", "12.35k", "4.56M", "1.2e15", "1.2e-4", "0.975"]
    assert (found["there"], found["back"]) == (100, pytest.approx(10))
    assert (found["domain"], found["none"]) == ([1.8, 4.2], None)
    assert found["single"] == [pytest.approx(2.7), pytest.approx(3.3)]
    assert found["units"] == ["seconds", "minutes", "hours"]


def test_smoothing_starts_without_a_bias_and_means_are_those_of_python(browse, tmp_path, comparison):
    from craft.report.curves import curves

    data = curves(comparison)
    view = "{x: 'step', smoothing: 0, mean: true, hidden: new Set(), logX: false, logY: false}"
    expression = f"""{{
        smooth: smooth([4, null, 2, 2], 0.5),
        line: linesOf({json.dumps(data)}, [{{name: "train/loss", held: false}}], {view})[0].points,
        nearest: [0, 4.9, 5.1, 99].map((x) => nearest([[1], [4], [6], [9]], x)[0]),
    }}"""
    found = computed(browse, tmp_path, expression, "node.js", "scale.js", "lines.js")
    assert found["smooth"] == [4, None, pytest.approx(8 / 3), pytest.approx(16 / 7)]
    expected = average(comparison.groups[0], "step", "train/loss")
    assert [point[0] for point in found["line"]] == [point.x for point in expected]
    assert [point[1] for point in found["line"]] == pytest.approx([point.y for point in expected], rel=1e-5)
    assert [point[3] for point in found["line"]] == pytest.approx([point.half for point in expected], rel=1e-3)
    assert found["nearest"] == [1, 4, 6, 9]
