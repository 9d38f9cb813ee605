"""`--mode=serve` as a command: from the printed address to Ctrl-C, and its mistakes."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest

from cgjax.errors import UserError
from cgjax.run.opening import load_run
from cgjax.serve.server import listen, listen_for, port_of
from tests.e2e.command import ROOT, cgjax


def ask(address, path, token, method="GET", body=None, **headers):
    headers = {"x-cgjax-token": token, "content-type": "application/json"} | headers
    request = urllib.request.Request(f"{address}{path}", body, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def test_it_serves_until_ctrl_c_and_exits_with_0_and_the_names_in_the_folder(copied):
    command = [sys.executable, "-m", "cgjax.main", "--mode=serve", f"--workdir={copied}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        url = urlsplit(process.stdout.readline().split()[1])
        address, (token,) = f"http://{url.netloc}", parse_qs(url.query)["token"]
        assert url.hostname == "127.0.0.1"
        assert len(token) >= 32
        assert "Draw new images" in ask(address, f"/?token={token}", "")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(address, "/?token=wrong", "")
        with pytest.raises(urllib.error.HTTPError, match="421"):
            ask(address, f"/?token={token}", token, host="evil.example")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(address, "/api/draw", token, "POST", b"{}", origin="http://evil.example")
        own = load_run(copied).clustering
        clusters = [{"id": 1, "name": "right", "was": None}]
        content = {"format": "cgjax names", "version": 1}
        content["clusterings"] = [{"id": own.id, "digest": own.digest, "clusters": clusters}]
        ask(address, "/api/names", token, "PUT", json.dumps(content).encode())
        taken = cgjax("--mode=name", f"--workdir={copied}", "--cluster=0", "--name=left")
        assert taken.returncode == 2
        assert "is being written by another command" in taken.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    assert [entry["name"] for entry in load_run(copied).entries] == [None, "right"]
    assert 'value="right"' in (copied / "report" / "index.html").read_text()
    assert "Draw new images" not in (copied / "report" / "index.html").read_text()


def test_an_address_that_cannot_be_used_is_a_one_line_error():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port} is in use; give another, or 0"):
            listen("127.0.0.1", port)
    for host in ("192.0.2.1", "a..b"):
        with pytest.raises(UserError, match=rf"^--host={host}: [A-Z][^(]*; expected an address of"):
            listen(host, 0)


def test_a_run_is_served_on_the_same_port_every_time_and_on_another_if_that_is_taken(tmp_path):
    with listen_for(tmp_path, "127.0.0.1", None) as first:
        port = first.getsockname()[1]
        assert port == port_of(tmp_path / ".." / tmp_path.name)
        with listen_for(tmp_path, "127.0.0.1", None) as second:
            assert second.getsockname()[1] != port
        with pytest.raises(UserError, match="is in use"):
            listen_for(tmp_path, "127.0.0.1", port)
    with listen_for(tmp_path, "127.0.0.1", None) as again:
        assert again.getsockname()[1] == port
    assert port_of(tmp_path / "other") != port


def test_without_a_run_there_is_nothing_to_serve(tmp_path):
    ended = cgjax("--mode=serve", f"--workdir={tmp_path / 'none'}")
    assert ended.returncode == 2
    assert ended.stderr.count("error:") == 1
    assert not (tmp_path / "none").exists()
