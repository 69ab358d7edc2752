"""Who is there, when all begin, and who ends: the roll of a gang, with real connections on this machine."""

import socket
import time

import pytest

from fourfold_ops.kubernetes.in_pod import channel
from fourfold_ops.kubernetes.in_pod import restart_group as gang
from fourfold_ops.kubernetes.in_pod.channel import Channel
from fourfold_ops.kubernetes.in_pod.restart_group import Coordinator, Worker, join, root_cause


@pytest.fixture
def roll(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Coordinator("train-0.train", 3, port)
    made.port = port
    yield made
    made.close()


def come(roll, index, name="train-0.train"):
    member = join(name, index, "localhost", roll.port)
    assert member is not None
    return member


def talk(roll, *members, rounds=20):
    for _ in range(rounds):
        roll.poll()
        for member in members:
            member.poll()
        time.sleep(0.005)


def test_nobody_begins_before_all_are_there_and_is_told_who_is_missing(roll):
    first, third = come(roll, 0), come(roll, 2)
    talk(roll, first, third)
    assert (first.generation, first.missing) == ("", [1])
    second = come(roll, 1)
    talk(roll, first, second, third)
    assert first.generation == second.generation == third.generation != ""


def test_a_pod_whose_place_is_taken_by_a_living_one_is_sent_away_and_so_is_one_of_another_gang(roll):
    members = [come(roll, index) for index in range(3)]
    talk(roll, *members)
    twin, stranger, beyond = come(roll, 1), come(roll, 1, "other-0.other"), come(roll, 3)
    talk(roll, *members, twin, stranger, beyond)
    assert twin.is_over and stranger.is_over and beyond.is_over
    assert not any(member.is_over for member in members)


def test_one_that_falls_silent_is_gone(roll, monkeypatch):
    members = [come(roll, index) for index in range(3)]
    talk(roll, *members)
    monkeypatch.setattr(channel, "BEAT_SECONDS", 0.0)
    talk(roll, *members)
    monkeypatch.setattr(channel, "LEASE_SECONDS", 1.0)
    while not members[0].is_over:
        talk(roll, *members[:2])
    talk(roll, *members[:2])
    assert [member.verdict for member in members[:2]] == ["again", "again"]
    assert members[0].why == "pod 2 is gone"


def test_none_ends_well_before_all_have(roll):
    members = [come(roll, index) for index in range(3)]
    talk(roll, *members)
    members[0].ended(0)
    members[1].ended(0)
    talk(roll, *members)
    assert not any(member.is_over for member in members)
    members[2].close()
    talk(roll, *members[:2])
    assert [member.verdict for member in members[:2]] == ["again", "again"]
    members = [come(roll, index) for index in range(3)]
    talk(roll, *members)
    for member in members:
        member.ended(0)
    talk(roll, *members)
    assert [member.verdict for member in members] == ["over"] * 3


def test_of_several_that_fail_one_leaves_and_the_others_begin_anew(roll):
    members = [come(roll, index) for index in range(3)]
    talk(roll, *members)
    for member, code in zip(members, (1, 137, 1), strict=True):
        member.ended(code)
    talk(roll, *members)
    assert [member.verdict for member in members] == ["again", "leave", "again"]


def test_while_one_that_was_told_to_go_is_saving_nobody_is_disturbed(roll, monkeypatch):
    monkeypatch.setattr(gang, "SETTLE_SECONDS", 0.0)
    members = [come(roll, index) for index in range(3)]
    talk(roll, *members)
    members[0].leaving()
    talk(roll, *members)
    members[1].ended(75)
    talk(roll, *members)
    assert not any(member.is_over for member in members)
    members[0].close()
    talk(roll, *members[1:])
    assert [member.verdict for member in members[1:]] == ["again", "again"]


@pytest.mark.parametrize(
    ("codes", "cause"),
    [({0: 1, 1: 1}, 0), ({1: 1, 0: 1}, 1), ({0: 1, 1: 137}, 1), ({0: 137, 1: 78}, 1), ({0: 143, 1: 1}, 1), ({0: 0, 1: 75}, 1)],
)
def test_the_exit_code_that_says_most_is_the_cause(codes, cause):
    assert root_cause(codes) == cause


def test_what_is_no_word_is_not_heard():
    ours, theirs = socket.socketpair()
    theirs.sendall(b'nonsense\n\n[1]\n{"word": "go", "generation": "x"}\n')
    member = Worker(Channel(ours), "train-0.train", 0)
    member.poll()
    assert member.generation == "x" and not member.is_over
    for _ in range(2):
        theirs.sendall(b"x" * 10_000)
        member.poll()
    assert member.is_over
