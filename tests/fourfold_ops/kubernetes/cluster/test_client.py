"""The client against an HTTP server on this machine with prepared answers: retries, watches, refusals, counts."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.cluster import client
from fourfold_ops.kubernetes.cluster.client import ApiError, ApiUnreachableError, Cluster, role_rules

SOURCE = Path(client.__file__).parents[1]

LIST = {"items": [{"metadata": {"name": "a"}}], "metadata": {"resourceVersion": "7"}}


def status(code, message="", reason=""):
    return code, {"kind": "Status", "message": message, "reason": reason}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Return the queue of answers, each (code, JSON or bytes), and the list of requests that arrived."""
    answers, requested = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requested.append(
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
    monkeypatch.setattr("fourfold_ops.kubernetes.cluster.client.MAX_PAUSE_SECONDS", 0.05)
    yield answers, requested
    http.shutdown()
    http.server_close()


def cluster(**options):
    return Cluster("ns", "here", **options)


def test_a_call_goes_to_the_resource_of_its_namespace_and_is_counted(server):
    answers, requested = server
    answers += [(200, LIST), (201, {}), (200, {})]
    here = cluster()
    assert here.all("jobs", "a=b") == LIST["items"]
    here.create("jobs", {}, dry_run=True)
    assert here.delete("jobs", "x")
    assert requested == [
        ("GET", "/apis/batch/v1/namespaces/ns/jobs", {"labelSelector": "a=b"}),
        ("POST", "/apis/batch/v1/namespaces/ns/jobs", {"dryRun": "All"}),
        ("DELETE", "/apis/batch/v1/namespaces/ns/jobs/x", {}),
    ]
    assert here.calls == {"list jobs": 1, "create jobs": 1, "delete jobs": 1}


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_call_is_repeated_after_a_transient_error(server, code):
    answers, _ = server
    answers += [status(code, "busy")] * 3 + [(200, LIST)]
    here = cluster()
    assert len(here.all("pods")) == 1 and here.calls["list pods"] == 4
    assert here.unreachable_since is None


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422])
def test_a_refusal_is_not_repeated(server, code):
    answers, _ = server
    answers.append(status(code, "no", "Reason"))
    with pytest.raises(ApiError, match=rf"get jobs in namespace 'ns': no \({code}\)") as error:
        cluster().get("jobs", "x")
    assert (error.value.status, error.value.verb, error.value.resource) == (code, "get", "jobs")


def test_deleting_a_missing_object_is_no_error(server):
    server[0].append(status(404, "not found"))
    assert cluster().delete("jobs", "x") is False


def test_an_unreachable_server_raises_after_the_time_limit(server):
    answers, _ = server
    answers += [(200, LIST), *[status(503, "no leader")] * 200]
    here = cluster(timeout_seconds=0.3)
    here.all("pods")
    with pytest.raises(
        ApiUnreachableError, match=r"The API server http://127.0.0.1:\d+ has not answered for 0 s: 503 no leader"
    ):
        here.all("pods")


def test_a_refused_connection_counts_as_unreachable(server, tmp_path):
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with pytest.raises(ApiUnreachableError, match="Connection refused"):
        cluster(timeout_seconds=0.2).all("jobs")


def test_a_broken_watch_continues_and_an_expired_one_lists_again(server):
    answers, requested = server

    def event(kind, version):
        return json.dumps({"type": kind, "object": {"metadata": {"name": "a", "resourceVersion": version}}}).encode() + b"\n"

    gone = json.dumps({"type": "ERROR", "object": {"code": 410}}).encode() + b"\n"
    answers += [
        (200, LIST),
        (200, event("ADDED", "8") + event("BOOKMARK", "9") + b'{"type": "MODI'),  # breaks in the middle of a line
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
    assert [query.get("resourceVersion") for _, _, query in requested] == [None, "7", "9", "10", "10", None, "7", None, "7"]


def test_calls_outside_the_permissions_are_refused(server):
    with pytest.raises((AssertionError, KeyError)):
        cluster().get("secrets", "x")
    with pytest.raises(AssertionError, match="delete services is not in PERMISSIONS"):
        cluster().delete("services", "x")
    assert server[1] == []


def test_a_missing_kubeconfig_is_reported_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="No connection to a cluster") as error:
        Cluster("ns")
    assert "Set KUBECONFIG" in error.value.remedy


@pytest.mark.parametrize("text", ["clusters: [", "just words", "current-context: here\n"])
def test_an_invalid_kubeconfig_is_a_user_error(tmp_path, monkeypatch, text):
    (tmp_path / "kubeconfig").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(UserError, match="No connection to a cluster: ") as error:
        Cluster("ns")
    assert "\n" not in str(error.value) and "Set KUBECONFIG" in error.value.remedy


def test_the_role_grants_exactly_the_permissions_of_the_client():
    assert {(r["apiGroups"][0], r["resources"][0]): tuple(r["verbs"]) for r in role_rules()} == client.PERMISSIONS
    assert not any("*" in r["verbs"] or "*" in r["resources"] for r in role_rules())
    assert all(r["resources"][0] not in ("secrets", "roles", "rolebindings", "pods/exec") for r in role_rules())


def test_every_permission_is_used():
    """The driver must not have a permission that it does not need."""
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    used = set(re.findall(r'cluster\.(create|delete|get|all)\("(\w+)"', text)) | {
        ("watch", "jobs"),
        ("watch", "pods"),
        ("watch", "events"),
    }
    used = {("list" if verb == "all" else verb, resource) for verb, resource in used} | {
        ("get", "pods/log"),
        ("list", "events"),
    }
    granted = {(verb, resource) for (_, resource), verbs in client.PERMISSIONS.items() for verb in verbs}
    assert used == granted
