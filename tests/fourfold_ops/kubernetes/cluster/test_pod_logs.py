"""A log is complete and without repetition, however its stream breaks. The reference is the log itself."""

import time
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fourfold_ops.kubernetes.cluster.pod_logs import Follower, SeenLines, complete_log

START = datetime(2026, 1, 1, tzinfo=UTC)


def written(steps):
    """Return lines as kubelet stores them: timestamps that never decrease and may repeat, with any text."""
    moment, lines = START, []
    for nanoseconds, text in steps:
        moment += timedelta(microseconds=nanoseconds)
        lines.append(f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z {text}\n".encode())
    return lines


def serve(lines, since):
    """Answer as the API server does, which ignores fractions of a second in the start time."""
    return [line for line in lines if since is None or line[:19].decode() >= since[:19]]


steps = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 300_000, 999_999, 5_000_000]), st.text("ab \t", max_size=4)), min_size=1, max_size=30
)


@given(steps, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=8))
def test_every_line_is_yielded_once_however_streams_break(texts, cuts):
    lines = written(texts)
    cuts = iter(cuts)

    def stream(since):
        """Yield the lines up to a cut, the last one incomplete; without cuts left, all lines."""
        cut = next(cuts, None)
        if cut is None:
            yield from serve(lines, since)
            return
        visible = serve(lines[: cut[0]], since)
        yield from visible[:-1]
        if visible:
            yield visible[-1][: max(1, len(visible[-1]) - cut[1])]

    turns = iter(range(len(texts) + 20))
    found = list(complete_log(stream, lambda: next(turns) > 12, lambda: None))
    assert found == [text.rstrip("\r\n") for _, text in texts]


def test_an_incomplete_last_line_is_yielded_only_at_the_end():
    stream = [b"2026-01-01T00:00:00.1Z whole\n", b"2026-01-01T00:00:00.2Z half"]
    ends = iter([False, True])
    assert list(complete_log(lambda _: stream, lambda: next(ends), lambda: None)) == ["whole", "half"]


def test_timestamps_of_other_zones_and_precisions_compare_correctly():
    seen = SeenLines()
    assert seen.new(b"2026-01-01T01:00:00.5+01:00 a\n") == b"a\n"
    assert seen.since == "2026-01-01T00:00:00Z"
    seen.reopened()
    assert seen.new(b"2026-01-01T00:00:00.500000000Z a\n") is None
    assert seen.new(b"2026-01-01T00:00:00.500000001Z b\n") == b"b\n"


def test_a_server_message_without_a_timestamp_is_passed_on():
    assert SeenLines().new(b"unable to retrieve container logs\n") == b"unable to retrieve container logs\n"


def test_a_log_without_new_lines_is_polled_less_and_less_often(tmp_path):
    opened = []

    def stream(since):
        opened.append(time.monotonic())
        return [b"2026-01-01T00:00:00.1Z over\n"]

    follower = Follower(stream, tmp_path / "pod.txt", lambda line: None, pause_seconds=0.05)
    follower.start()
    time.sleep(1)
    follower.end()
    follower.join(5)
    assert not follower.is_alive()
    assert len(opened) <= 7  # pauses of .05, .1, .2, .4 s ... and one last read; constant pauses would give 20
    assert (tmp_path / "pod.txt").read_text() == "over\n"
