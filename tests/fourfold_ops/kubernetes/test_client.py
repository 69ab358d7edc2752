"""The client against a server of HTTP on this machine that misbehaves as told: retries, watches, refusals, counting."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.client import ApiAwayError, ApiError, Cluster

LIST = {"items": [{"metadata": {"name": "a"}}], "metadata": {"resourceVersion": "7"}}


def status(code, message="", reason=""):
    return code, {"kind": "Status", "message": message, "reason": reason}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Return (answers, requests): a queue of answers, each (code, JSON or lines of bytes), and what was asked."""
    answers, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(
                (self.command, urlparse(self.path).path, {k: v[0] for k, v in parse_qs(urlparse(self.path).query).items()})
            )
            if length := int(self.headers.get("Content-Length") or 0):
                self.rfile.read(length)
            code, content = answers.pop(0)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{http.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("fourfold_ops.kubernetes.client.LONGEST_PAUSE", 0.05)
    yield answers, asked
    http.shutdown()
    http.server_close()


def cluster(**options):
    return Cluster("ns", "here", **options)


def test_a_call_goes_to_the_resource_of_its_namespace_and_is_counted(server):
    answers, asked = server
    answers += [(200, LIST), (201, {}), (200, {})]
    here = cluster()
    assert here.all("jobs", "a=b") == LIST["items"]
    here.create("jobs", {}, dry_run=True)
    assert here.delete("jobs", "x")
    assert asked == [
        ("GET", "/apis/batch/v1/namespaces/ns/jobs", {"labelSelector": "a=b"}),
        ("POST", "/apis/batch/v1/namespaces/ns/jobs", {"dryRun": "All"}),
        ("DELETE", "/apis/batch/v1/namespaces/ns/jobs/x", {}),
    ]
    assert here.calls == {"list jobs": 1, "create jobs": 1, "delete jobs": 1}


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(server, code):
    answers, _ = server
    answers += [status(code, "busy")] * 3 + [(200, LIST)]
    here = cluster()
    assert len(here.all("pods")) == 1 and here.calls["list pods"] == 4
    assert here.away_since is None


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422])
def test_a_refusal_is_not_repeated_and_says_verb_and_resource(server, code):
    answers, _ = server
    answers.append(status(code, "no", "Reason"))
    with pytest.raises(ApiError, match=rf"get jobs in namespace 'ns': no \({code}\)") as error:
        cluster().get("jobs", "x")
    assert (error.value.status, error.value.verb, error.value.resource) == (code, "get", "jobs")


def test_deleting_what_is_gone_is_no_error(server):
    server[0].append(status(404, "not found"))
    assert cluster().delete("jobs", "x") is False


def test_a_server_that_stays_away_ends_in_one_line_after_the_limit(server):
    answers, _ = server
    answers += [(200, LIST), *[status(503, "no leader")] * 200]
    here = cluster(patience=0.3)
    here.all("pods")
    with pytest.raises(ApiAwayError, match=r"The API server http://127.0.0.1:\d+ has not answered for 0 s: 503 no leader"):
        here.all("pods")


def test_nobody_listening_is_a_server_that_is_away(server, tmp_path):
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with pytest.raises(ApiAwayError, match="Connection refused"):
        cluster(patience=0.2).all("jobs")


def test_a_watch_goes_on_where_it_was_cut_and_lists_again_when_it_is_too_old(server):
    answers, asked = server

    def event(kind, version):
        return json.dumps({"type": kind, "object": {"metadata": {"name": "a", "resourceVersion": version}}}).encode() + b"\n"

    gone = json.dumps({"type": "ERROR", "object": {"code": 410}}).encode() + b"\n"
    answers += [
        (200, LIST),
        (200, event("ADDED", "8") + event("BOOKMARK", "9") + b'{"type": "MODI'),  # cut in the middle of a line
        (200, event("MODIFIED", "10")),
        status(503),
        (200, gone),
        (200, LIST),
        status(410, "too old"),
        (200, LIST),
        (200, event("DELETED", "11")),
    ]
    here, seen = cluster(), []
    for kind, _ in here.watch("pods", "a=b"):
        seen.append(kind)
        if kind == "DELETED":
            break
    assert seen == ["LISTED", "ADDED", "MODIFIED", "LISTED", "LISTED", "DELETED"]
    assert [query.get("resourceVersion") for _, _, query in asked] == [None, "7", "9", "10", "10", None, "7", None, "7"]


def test_what_is_not_in_the_table_of_permissions_is_never_asked(server):
    with pytest.raises((AssertionError, KeyError)):
        cluster().get("secrets", "x")
    with pytest.raises(AssertionError, match="delete services is not in PERMISSIONS"):
        cluster().delete("services", "x")
    assert server[1] == []


def test_without_a_way_to_a_cluster_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="There is no way to a cluster") as error:
        Cluster("ns")
    assert "Set KUBECONFIG" in error.value.remedy


@pytest.mark.parametrize("text", ["clusters: [", "just words", "current-context: here\n"])
def test_a_kubeconfig_that_cannot_be_read_is_the_users_to_mend(tmp_path, monkeypatch, text):
    (tmp_path / "kubeconfig").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(UserError, match="There is no way to a cluster: ") as error:
        Cluster("ns")
    assert "\n" not in str(error.value) and "Set KUBECONFIG" in error.value.remedy
