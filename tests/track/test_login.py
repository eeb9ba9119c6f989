"""Whether W&B is on, from what its own login leaves behind."""

import sys

import pytest

from craft.track import resolve

KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_nobody_is_logged_in():
    assert resolve("auto") == "off"
    assert "wandb" not in sys.modules


@pytest.mark.parametrize("mode", ["online", "offline", "off"])
def test_what_is_asked_for_is_done(mode):
    assert resolve(mode) == mode


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"got track.wandb=on; expected auto"):
        resolve("on")


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve("auto") == "off"
    with pytest.raises(ValueError, match="wandb is not installed"):
        resolve("online")


@pytest.mark.parametrize(
    ("wandb_mode", "result"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "off"), ("online", "online")]
)
def test_the_environment_is_respected(monkeypatch, wandb_mode, result):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert resolve("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", wandb_mode)
    assert resolve("auto") == result


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_a_netrc_entry_of_the_public_server(tmp_path, host):
    (tmp_path / ".netrc").write_text(f"machine {host} login user password {KEY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert resolve("auto") == "online"


def test_a_netrc_entry_counts_for_its_host_alone(monkeypatch, tmp_path):
    path = tmp_path / "elsewhere"
    path.write_text(f"machine my.server:8080 login user password {KEY}\nmachine short login user password secret\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    assert resolve("auto") == "off"
    monkeypatch.setenv("WANDB_BASE_URL", "https://my.server:8080")
    assert resolve("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://short")
    assert resolve("auto") == "off"


@pytest.mark.parametrize("content", ["machine", "\0", "machine api.wandb.ai login user password"])
def test_a_broken_netrc_is_nobody(tmp_path, content):
    (tmp_path / ".netrc").write_text(content)
    assert resolve("auto") == "off"


def test_settings_files(tmp_path):
    folder = tmp_path / ".config" / "wandb"
    folder.mkdir(parents=True)
    (folder / "settings").write_text(f"[default]\napi_key = {KEY}\n")
    assert resolve("auto") == "online"
    (folder / "settings").write_text("[default]\napi_key = short\n")
    assert resolve("auto") == "off"
    (folder / "settings").write_text(f"[default]\napi_key = {KEY}\n")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    assert resolve("auto") == "offline"
    (tmp_path / "wandb" / "settings").write_text("no section\n")
    assert resolve("auto") == "online"
