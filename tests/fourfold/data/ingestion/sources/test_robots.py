"""robots.txt as RFC 9309 has it, from servers on loopback that answer in every way."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from fourfold.data.ingestion.sources import robots
from fourfold.data.ingestion.sources.robots import FORBIDDEN, UNREACHABLE, Asking, Robots, origin_of

sys.path.insert(0, str(Path(__file__).parents[4] / "support"))
from crawl_server import serving

ASKING = Asking("fourfold-test", timeout=60, max_seconds=60, threads=4)
IMPATIENT = Asking("fourfold-test", timeout=1, max_seconds=1, threads=4)  # with servers that never answer
RULES = b"""\xef\xbb\xbf# a comment
User-agent: fourfold-test
Allow: /open/
Disallow: /

User-agent: *
Disallow: /private/
"""


@pytest.fixture
def known(tmp_path):
    found = Robots(tmp_path / "deep" / "robots.sqlite", ASKING)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        ((200, b"User-agent: *\nDisallow:"), None),
        ((200, b""), None),
        ((200, b"User-agent: *\nDisallow: /"), FORBIDDEN),
        ((200, RULES), FORBIDDEN),
        ((200, b"\xff\xfe\x00 no text at all"), None),
        ("html", None),
        ((404, b"User-agent: *\nDisallow: /"), None),  # 4xx: there are no rules
        ((403, b""), None),
        ((410, b""), None),
        ("loop", None),  # redirects without an end
        ((429, b""), UNREACHABLE),
        ((500, b""), UNREACHABLE),
        ((503, b""), UNREACHABLE),
        ("silent", UNREACHABLE),
        ("drip", UNREACHABLE),
        ("file", None),  # a redirect to a file of this machine, which is not followed
    ],
)
def test_each_answer_allows_forbids_or_counts_as_none(tmp_path, answer, refusal):
    known = Robots(tmp_path / "robots.sqlite", IMPATIENT if answer in ("silent", "drip") else ASKING)
    with serving() as server, closing(known):
        server.robots = answer
        address = f"{server.url}/photo.jpg"
        known.fetch([address, f"{server.url}/other.jpg"])
        assert known.refusal(address) == refusal
        assert server.requests["/robots.txt"] == 1 or answer == "loop"


def test_rules_for_this_program_come_before_those_for_all(tmp_path):
    with serving() as server:
        server.robots = (200, RULES)
        for agent, paths in (("fourfold-test", {"/open/a.jpg"}), ("another", {"/open/a.jpg", "/a.jpg"})):
            found = Robots(tmp_path / agent, Asking(agent, 60, 60, 2))
            found.fetch([server.url])
            allowed = {path for path in ("/open/a.jpg", "/a.jpg", "/private/a.jpg") if not found.refusal(server.url + path)}
            found.close()
            assert allowed == paths


def test_a_server_is_asked_once_and_only_what_is_missing_after_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(robots, "BATCH", 1)
    with serving() as first, serving() as second:
        servers = sorted([first, second], key=lambda one: one.url)
        found = Robots(tmp_path / "x", ASKING)
        ask = robots._ask
        with monkeypatch.context() as patch:
            patch.setattr(robots, "_ask", lambda origin, asking: ask(origin, asking) if origin == servers[0].url else 1 / 0)
            with pytest.raises(ZeroDivisionError):
                found.fetch([first.url, second.url])
        found.close()
        again = Robots(tmp_path / "x", ASKING)
        again.fetch([first.url, second.url])
        assert [server.requests["/robots.txt"] for server in servers] == [1, 1]
        assert again.refusal(first.url) is None and again.refusal(second.url) is None
        again.close()


def test_no_more_than_the_limit_is_read(known):
    with serving() as server:
        server.robots = "endless"
        known.fetch([server.url])
    (size,) = known._database.execute("SELECT length(CAST(rules AS BLOB)) FROM servers").fetchone()
    assert size <= 4 * robots.MAX_BYTES  # replacement characters take up to four bytes


def test_a_server_that_is_gone_allows_nothing(known):
    with serving() as server:
        address = f"{server.url}/a.jpg"
    known.fetch([address])
    assert known.refusal(address) == UNREACHABLE


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://Example.org/a/b.jpg?c=d", "https://example.org"),
        ("http://user:secret@example.org:8080/x", "http://example.org:8080"),
        ("http://[2001:db8::1]:81/x", "http://[2001:db8::1]:81"),
        ("http://example.org:99999/x", None),
        ("http:///x", None),
        ("ftp://example.org/x", None),
        ("file:///etc/hostname", None),
        ("no address", None),
    ],
)
def test_origins(known, address, origin):
    assert origin_of(address) == origin
    if origin is None:
        known.fetch([address])
        assert known.refusal(address) is None  # the download refuses it
