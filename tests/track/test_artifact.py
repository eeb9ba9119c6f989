"""What is uploaded of a run."""

from craft.track.artifact import newest


def test_the_newest_checkpoint_by_its_number(tmp_path):
    assert newest(tmp_path) is None
    for name in ("step-00000009", "step-00000010", ".tmp-step-00000011", "step-x"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "params.safetensors").write_bytes(b"12345")
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "metrics.jsonl").write_bytes(b"{}")
    found = newest(tmp_path)
    assert found is not None
    assert (found.step, found.size) == (10, 7)
    assert list(found.files) == ["config.json", "checkpoints/step-00000010/params.safetensors"]
