"""What a model wrote comes back as it was shown."""

from craft import track
from craft.report.samples import Sample, read


def test_samples_come_back_whatever_the_model_wrote(tmp_path):
    sink = track.Jsonl()
    sink.start(track.Info(name="run", directory=tmp_path, config={}, steps=9))
    texts = ['a\n\n    indented\n== step 9, after the prompt "x"', "", "\x1b[31m</script>\ttab"]
    for step, text in enumerate(texts):
        sink.sample(step, 'say "hi"\n', text)
    sink.finish("finished", {})
    found = read(tmp_path / "samples.txt")
    assert [sample.step for sample in found] == [0, 1, 2]
    assert {sample.prompt for sample in found} == {'say "hi"\n'}
    assert [sample.text for sample in found] == [texts[0], "", "\\x1b[31m</script>\ttab"]


def test_no_file_and_no_heading(tmp_path):
    assert read(tmp_path / "samples.txt") == ()
    (tmp_path / "samples.txt").write_text("something else\n", encoding="utf-8")
    assert read(tmp_path / "samples.txt") == ()


def test_an_escaped_prompt_stays_as_it_is_shown(tmp_path):
    (tmp_path / "samples.txt").write_text('== step 3, after the prompt "\\x1b"\n    text\n\n', encoding="utf-8")
    assert read(tmp_path / "samples.txt") == (Sample(3, '"\\x1b"', "text"),)
