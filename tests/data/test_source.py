"""Sources: what is read, and what is said when it cannot be."""

import hashlib
import http.server
import os
import socket
import stat
import sysconfig
import threading
from pathlib import Path

import attrs
import pytest

from craft.cache import cache_directory
from craft.data import DataError, corpora, find
from craft.data.division import joined
from craft.data.download import fetch
from craft.data.survey import survey
from craft.errors import UsageError

SHAKESPEARE = ("First Citizen:\nBefore we proceed any further, hear me speak.\n" * 20).encode()


@attrs.frozen
class Corpus:
    text: str
    fingerprint: str
    name: str
    files: int


def read(name: str) -> Corpus:
    """Read a source as training does: a document that is not the only one ends a line."""
    found = find(name)
    looked = survey(found)
    text = "".join(part.text for part in joined(found.parts(), lines=looked.documents > 1))
    return Corpus(text, looked.corpus, found.name, found.files)


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def test_stdlib_is_ascii_large_and_the_same_twice():
    corpus = read("stdlib")
    assert corpus.text.isascii()
    assert len(corpus.text) > 5_000_000
    assert 80 <= len(set(corpus.text)) <= 100
    assert "\r" not in corpus.text
    assert corpus.files > 400
    assert corpus.fingerprint == read("stdlib").fingerprint


def test_stdlib_has_no_tests_and_nothing_of_the_machine(monkeypatch, tmp_path):
    modules = ["os.py", "json/__init__.py", "json/test/case.py", "lib2to3/tests/b.py", "idlelib/idle_test/c.py", "test/d.py"]
    modules += [
        "site-packages/e.py",
        "config-3.11-linux/f.py",
        "_sysconfigdata_linux.py",
        "sitecustomize.py",
        "json/__pycache__/g.py",
    ]
    for name in modules:
        write(tmp_path / name, f"# {name}\r\n".encode())
    write(tmp_path / "ast.py", "# é\n".encode())
    write(tmp_path / "abc.txt", b"# no module\n")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    corpus = read("stdlib")
    assert corpus.text == "# json/__init__.py\n# os.py\n"


def test_a_python_without_its_sources_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match=f"found no text in {tmp_path}"):
        read("stdlib")


def test_a_file_is_read_as_it_is_but_for_its_mark(tmp_path):
    corpus = read(write(tmp_path / "a.txt", b"\xef\xbb\xbfh\xc3\xa9\r\n\xef\xbb\xbflast"))
    assert corpus.text == "hé\r\n\ufefflast"
    assert corpus.name == "a.txt"
    assert corpus.files == 1
    assert corpus.fingerprint == hashlib.sha256(corpus.text.encode()).hexdigest()


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    write(tmp_path / "b.md", b"three\n")
    write(tmp_path / "a" / "z.txt", b"\xef\xbb\xbftwo")
    write(tmp_path / "a-b" / "x", b"one\n")
    write(tmp_path / "empty.txt", b"")
    write(tmp_path / "picture.png", b"\x89PNG\0\0")
    write(tmp_path / ".hidden", b"no\n")
    write(tmp_path / ".git" / "config", b"no\n")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    corpus = read(str(tmp_path))
    assert corpus.text == "one\ntwo\nthree\n"
    assert corpus.files == 4


def test_the_order_of_the_folder_does_not_matter(tmp_path, monkeypatch):
    for name in ("c", "a", "b"):
        write(tmp_path / name / "t.txt", name.encode())
    first, walk = read(str(tmp_path)), os.walk
    monkeypatch.setattr(os, "walk", lambda root, **more: reversed(list(walk(root, **more))))
    assert read(str(tmp_path)) == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"found no text in .*t\.txt; give a source"),
        (b"\n \n", r"found only whitespace \(3 characters\) in .*t\.txt"),
        (b"ab\ncd\0e", r"t\.txt has a NUL byte at offset 5 \(line 2\)"),
        (b"ok\nok\xff\xfe", r"t\.txt is not UTF-8: byte 0xff at offset 5 \(line 2\)"),
        (b"\xef\xbb\xbfok\n\xe9t\xe9", r"byte 0xe9 at offset 6 \(line 2\)"),
        (b"cut \xe2\x98", r"byte 0xe2 at offset 4 \(line 1\)"),
        ("né".encode("utf-16"), r"t\.txt begins with the mark of UTF-16"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "t.txt", content))


def test_a_bad_file_in_a_folder_is_named(tmp_path):
    write(tmp_path / "a.txt", b"good\n")
    write(tmp_path / "deep" / "b.txt", b"caf\xe9\n")
    with pytest.raises(DataError, match=r"deep/b\.txt is not UTF-8: byte 0xe9 at offset 3 \(line 1\)"):
        read(str(tmp_path))


def test_utf16_in_a_folder_is_no_binary_to_leave_out(tmp_path):
    write(tmp_path / "a.txt", b"good\n")
    write(tmp_path / "b.txt", "né".encode("utf-16"))
    with pytest.raises(DataError, match=r"b\.txt begins with the mark of UTF-16"):
        read(str(tmp_path))


def test_a_folder_without_text_is_an_error(tmp_path):
    write(tmp_path / "a.bin", b"\0\1")
    with pytest.raises(DataError, match="found no text in"):
        read(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "near"),
    [("shakespear", "did you mean shakespeare"), ("stdlb", "did you mean stdlib"), ("zzz", "give one of these")],
)
def test_a_wrong_name_gets_the_nearest(name, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"got source '{name}', which is neither .*; {near}"):
        read(name)


def test_a_wrong_path_gets_the_nearest(tmp_path):
    write(tmp_path / "novels" / "emma.txt", b"x")
    with pytest.raises(DataError, match=r"did you mean .*novels/emma\.txt\?"):
        read(str(tmp_path / "novels" / "ema.txt"))
    with pytest.raises(DataError, match=r"did you mean .*novels\?"):
        read(str(tmp_path / "novel" / "emma.txt"))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-of-this-name/x", "x/" * 3000])
def test_a_name_that_no_file_can_have_is_missing(name):
    with pytest.raises(DataError, match="which is neither"):
        read(name)


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_working_directory(name):
    with pytest.raises(DataError, match="give stdlib, python, shakespeare, or the path"):
        read(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read(str(tmp_path / "pipe"))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that not even root can read")
def test_an_unreadable_file_is_named():
    with pytest.raises(DataError, match=r"could not read /proc/self/mem \(.+\); make it readable"):
        read("/proc/self/mem")


class Answer(http.server.BaseHTTPRequestHandler):
    """What the loopback server says: set by each test."""

    status, body, length = 200, b"", -1

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body) if self.length < 0 else self.length))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Start a server on the loopback device and point the download at it."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(corpora, "_SHAKESPEARE_SHA256", hashlib.sha256(SHAKESPEARE).hexdigest())
    servers = []

    def start(**answer):
        handler = type("Handler", (Answer,), answer)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("CRAFT_SHAKESPEARE_URL", f"http://127.0.0.1:{server.server_port}/input.txt")
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def kept(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_download_is_kept_and_not_asked_for_again(serve, tmp_path):
    server = serve(body=SHAKESPEARE)
    corpus = read("shakespeare")
    assert corpus.text == SHAKESPEARE.decode()
    assert corpus.name == "shakespeare"
    server.shutdown()
    server.server_close()
    assert read("shakespeare") == corpus
    (path,) = kept(tmp_path)
    assert path == tmp_path / "cache" / "craft" / "data" / "tinyshakespeare.txt"
    assert path.read_bytes() == SHAKESPEARE


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"body": b"wrong"}, r"got 5 bytes with sha256 [0-9a-f]{64} from 127\.0\.0\.1, which are not tinyshakespeare\.txt"),
        ({"body": SHAKESPEARE[:-9], "length": len(SHAKESPEARE)}, r"got \d+ bytes with sha256|could not download"),
        ({"status": 500}, r"could not download tinyshakespeare\.txt from 127\.0\.0\.1 \(the server answered 500"),
        ({"status": 404}, r"the server answered 404 Not Found"),
        ({"body": b"x" * 4_000_001}, r"more than 4000000 bytes came"),
    ],
)
def test_a_bad_answer_leaves_nothing(serve, tmp_path, answer, message):
    serve(**answer)
    with pytest.raises(DataError, match=message) as info:
        read("shakespeare")
    assert str(tmp_path / "cache" / "craft" / "data" / "tinyshakespeare.txt") in str(info.value)
    assert corpora._SHAKESPEARE_SHA256 in str(info.value)
    assert kept(tmp_path) == []
    serve(body=SHAKESPEARE)
    assert read("shakespeare").text == SHAKESPEARE.decode()


def test_offline_says_where_to_put_the_file(serve, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CRAFT_SHAKESPEARE_URL", f"http://127.0.0.1:{free.getsockname()[1]}/input.txt")
        with pytest.raises(DataError, match=r"Connection refused.*; go online, or put the file \(sha256 .*\) at .* by hand"):
            read("shakespeare")
    write(tmp_path / "cache" / "craft" / "data" / "tinyshakespeare.txt", SHAKESPEARE)
    assert read("shakespeare").files == 1


def test_a_silent_server_is_given_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DataError, match=r"127\.0\.0\.1 \(timed out\)"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", tmp_path / "f", sha256="0", limit=9, timeout=0.2)


def test_a_server_that_drips_is_given_up(tmp_path):
    def drip():
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            while not done.wait(0.02):
                connection.sendall(b"x")

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(DataError, match=r"not done after 0\.3 seconds"):
            fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/", tmp_path / "f", sha256="0", limit=10**6, timeout=0.1)
        done.set()
        thread.join()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "input.txt", "https://me:secret@host/x"])
def test_an_address_that_is_not_taken_is_not_shown(url, serve, monkeypatch):
    monkeypatch.setenv("CRAFT_SHAKESPEARE_URL", url)
    with pytest.raises(DataError, match="must begin with https:// or http:// and hold no password") as info:
        read("shakespeare")
    assert "secret" not in str(info.value)


def test_a_kept_file_that_changed_is_refused(serve, tmp_path):
    serve(body=SHAKESPEARE)
    path = write(tmp_path / "cache" / "craft" / "data" / "tinyshakespeare.txt", SHAKESPEARE + b"!")
    with pytest.raises(DataError, match=r"tinyshakespeare\.txt has sha256 .*, expected .*; delete it"):
        read("shakespeare")
    assert Path(path).read_bytes() == SHAKESPEARE + b"!"


def test_the_pin_is_the_one_of_the_published_file():
    assert corpora._SHAKESPEARE_SHA256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_the_cache_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "cache"))
    place = cache_directory("data")
    assert place == tmp_path / "new" / "cache" / "craft" / "data"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place, place.parent)] == [0o700, 0o700]


def test_a_relative_cache_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory("data") == tmp_path / ".cache" / "craft" / "data"


def test_a_cache_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    write(tmp_path / "file", b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"could not make the cache directory .*; set XDG_CACHE_HOME"):
        cache_directory("data")
