"""Promotion and rollback of versions: the gate decides, the history is append-only, of two at once one wins."""

import json
import threading
from pathlib import Path

import pytest
from shelf import NAME

from fourfold_ops.errors import EXIT_BUSY, UserError
from fourfold_ops.registry.history import History, OvertakenError
from fourfold_ops.registry.promotion import decide, promote, rollback
from fourfold_ops.registry.versions import ModelVersions
from fourfold_ops.reproduction.recorded_run import VERDICT
from fourfold_ops.tracking import names


def decision_of(shelf, wanted="candidate", **options):
    """What a new command sees, and a function that carries it out."""
    models, request = ModelVersions(shelf.client, NAME), shelf.request(**options)
    history = History(shelf.client, NAME)
    decision = decide(models, history, wanted, request)
    return decision, lambda: promote(models, history, decision, request)


def rolled_back(shelf, reason=""):
    return rollback(ModelVersions(shelf.client, NAME), History(shelf.client, NAME), shelf.project, reason)


def failed(decision):
    return {finding.name for finding in decision.findings if not finding.passed}


def test_first_version_is_promoted_against_the_trivial_answer_and_a_better_one_replaces_it(shelf):
    shelf.add(0.5)
    first, move = decision_of(shelf)
    assert first.passed and first.champion is None
    move()
    assert shelf.aliases() == {"candidate": "1", "champion": "1"}
    shelf.add(0.6)
    second, move = decision_of(shelf)
    assert second.passed
    move()
    assert shelf.aliases() == {"candidate": "2", "champion": "2", "previous": "1"}
    tags = shelf.client.get_model_version(NAME, "2").tags
    assert tags["promotion.by"] == "Ada <ada@example.org>" and tags["promotion.from"] == "1"
    assert tags["promotion.gate_sha256"] == shelf.request().gate.digest()


@pytest.mark.parametrize("quality", [0.0, -0.1])
def test_first_version_that_is_no_better_than_the_trivial_answer_is_refused(shelf, quality):
    shelf.add(quality)
    decision, _ = decision_of(shelf)
    assert failed(decision) == {"score"}


@pytest.mark.parametrize(("quality", "conditions"), [(0.45, {"score", "improvement"}), (0.499, {"improvement"})])
def test_a_worse_version_is_refused_and_nothing_changes(shelf, quality, conditions):
    shelf.add(0.5)
    decision_of(shelf)[1]()
    shelf.add(quality)
    decision, move = decision_of(shelf)
    assert failed(decision) == conditions
    with pytest.raises(AssertionError):
        move()
    assert shelf.aliases() == {"candidate": "2", "champion": "1"}
    assert len(History(shelf.client, NAME).entries()) == 1


@pytest.mark.parametrize(
    ("facts", "condition", "found"),
    [
        ({names.DIRTY: "true"}, "clean_tree", "changes beside"),
        ({names.DIRTY: ""}, "clean_tree", "not recorded"),
        ({names.LOCK_MD5: "0123456789"}, "committed_lock", "lock 01234567 is in no commit: git add dvc.lock"),
        ({names.LOCK_MD5: "absent"}, "committed_lock", "no lock"),
        ({names.RECORDED: "false"}, "committed_lock", "does not describe its own stages"),
        ({names.OUTDATED: "pretraining"}, "committed_lock", "does not describe pretraining"),
        ({names.RESULTS_SCOPE: "partial", names.RESULTS_LEFT_OUT: "No transfer."}, "whole_evaluation", "partial No transfer."),
        ({names.RESULTS_SCOPE: ""}, "whole_evaluation", "not recorded"),
    ],
)
def test_each_requirement_refuses_with_what_was_found(shelf, facts, condition, found):
    shelf.add(0.5, **facts)
    decision, _ = decision_of(shelf)
    assert failed(decision) == {condition}
    assert found in next(f.found for f in decision.findings if f.name == condition)


@pytest.mark.parametrize(
    ("verdict", "passed"), [("identical", True), ("within tolerance", True), ("different", False), ("", False)]
)
def test_reproduction_is_required_if_the_gate_asks(shelf, verdict, passed):
    shelf.add(0.5, **{VERDICT: verdict})
    assert failed(decision_of(shelf)[0]) == set()
    request = shelf.request(require=["reproduced"])
    decision = decide(ModelVersions(shelf.client, NAME), History(shelf.client, NAME), "1", request)
    assert failed(decision) == (set() if passed else {"reproduced"})


def test_evidence_about_other_files_is_refused(shelf):
    shelf.add(0.5, evidence=shelf.evidence(0.5) | {"digest": "of another model"})
    assert failed(decision_of(shelf)[0]) == {"this_model"}


def test_data_without_checks_is_refused(shelf):
    shelf.add(0.5, checked=False)
    decision, _ = decision_of(shelf)
    assert failed(decision) == {"data_checks"}
    assert "no result for numbers" in next(f.found for f in decision.findings if f.name == "data_checks")


def test_other_test_data_are_refused(shelf):
    shelf.add(0.5)
    decision_of(shelf)[1]()
    shelf.add(0.9, evidence=shelf.evidence(0.9, data="other"))
    assert failed(decision_of(shelf)[0]) == {"score", "improvement"}


def test_version_without_evidence_is_refused(shelf):
    shelf.add(0.5)
    run = shelf.client.create_run(shelf.experiment).info.run_id
    shelf.client.set_model_version_tag(NAME, "1", names.MODEL_RUN, run)
    assert {"this_model", "metrics", "data_checks"} <= failed(decision_of(shelf)[0])


def test_lock_is_found_in_an_older_commit_of_another_branch(shelf):
    shelf.add(0.5)
    shelf.git("checkout", "-q", "-b", "other")
    shelf.commit_lock("lock 2")
    shelf.git("checkout", "-q", "--orphan", "third")
    assert decision_of(shelf)[0].passed


def test_force_is_recorded_with_its_reason_and_marks_the_version(shelf):
    shelf.add(0.5, **{names.DIRTY: "true"})
    decision, move = decision_of(shelf, force=True, reason="the demo is today")
    assert not decision.passed
    entry = move()
    assert entry.forced and entry.reason == "the demo is today"
    assert ModelVersions(shelf.client, NAME).get("champion").marks == ["dirty", "forced"]
    path = shelf.client.download_artifacts(History(shelf.client, NAME).run_id, "promotions/0001.json")
    kept = json.loads(Path(path).read_text())
    assert (kept["reason"], kept["gate"]) == ("the demo is today", shelf.request().gate.digest())
    assert [finding["name"] for finding in kept["findings"] if not finding["passed"]] == ["clean_tree"]
    assert kept["gate_settings"]["metrics"]["score"]["max_loss"] == 0.01


def test_of_two_promotions_at_once_one_wins_and_the_other_changes_nothing(shelf):
    shelf.add(0.5)
    shelf.add(0.6)
    _, first = decision_of(shelf, "1")
    _, second = decision_of(shelf, "2")
    first()
    with pytest.raises(OvertakenError, match=r"promote none → 1 by Ada .* Nothing was changed") as caught:
        second()
    assert caught.value.exit_code == EXIT_BUSY
    assert shelf.aliases() == {"candidate": "2", "champion": "1"}
    assert [entry.to_version for entry in History(shelf.client, NAME).entries()] == ["1"]


def test_a_promotion_between_reading_aliases_and_history_is_noticed(shelf):
    for quality in (0.5, 0.6, 0.4):
        shelf.add(quality)
    models, request = ModelVersions(shelf.client, NAME), shelf.request()
    assert "champion" not in models.aliases  # read early, as the command does to find the model
    decision_of(shelf, "2")[1]()
    decision = decide(models, History(shelf.client, NAME), "3", request)
    assert decision.champion.number == "2" and not decision.passed


def test_a_move_that_is_under_way_is_waited_for(shelf, monkeypatch):
    monkeypatch.setattr("fourfold_ops.registry.promotion.POLL_SECONDS", 0.01)
    shelf.add(0.5)
    decision_of(shelf)[1]()
    shelf.client.delete_registered_model_alias(NAME, "champion")  # as between the two steps of a move
    with pytest.raises(OvertakenError, match=r"Another command moves the champion .* promote none → 1"):
        decision_of(shelf)
    threading.Timer(0.05, shelf.client.set_registered_model_alias, (NAME, "champion", "1")).start()
    shelf.add(0.6)
    assert decision_of(shelf)[0].champion.number == "1"


def test_an_alias_that_was_moved_by_hand_is_a_warning(shelf, monkeypatch, caplog):
    monkeypatch.setattr("fourfold_ops.registry.promotion.MOVE_SECONDS", -1)
    shelf.add(0.5)
    decision_of(shelf)[1]()
    shelf.add(0.4)
    shelf.client.set_registered_model_alias(NAME, "champion", "2")
    shelf.add(0.6)
    decision, move = decision_of(shelf)
    assert "The champion is version 2, but the history ends with" in caplog.text
    assert decision.champion.number == "2" and move().from_version == "2"


def test_rollback_restores_the_previous_champion_and_is_in_the_history(shelf):
    for quality in (0.5, 0.6):
        shelf.add(quality)
        decision_of(shelf)[1]()
    entry = rolled_back(shelf, "slow")
    assert (entry.action, entry.from_version, entry.to_version, entry.reason) == ("rollback", "2", "1", "slow")
    assert shelf.aliases() == {"candidate": "2", "champion": "1", "previous": "2"}
    assert [e.action for e in History(shelf.client, NAME).entries()] == ["promote", "promote", "rollback"]
    rolled_back(shelf)
    assert shelf.aliases()["champion"] == "2"


def test_rollback_without_a_previous_champion_is_one_clear_error(shelf):
    shelf.add(0.5)
    for alias in ("champion", "previous"):
        with pytest.raises(UserError, match=f"has no alias '{alias}'"):
            rolled_back(shelf)
        if alias == "champion":
            decision_of(shelf)[1]()


def test_history_cannot_be_changed(shelf):
    shelf.add(0.5)
    decision_of(shelf)[1]()
    history = History(shelf.client, NAME)
    with pytest.raises(Exception, match="Changing param values is not allowed"):
        shelf.client.log_param(history.run_id, "1", "{}")
    assert history.entries()[0].to_version == "1"


def test_unknown_versions_and_models_are_named(shelf):
    shelf.add(0.5)
    with pytest.raises(UserError, match="no version or alias '7'") as caught:
        decision_of(shelf, "7")
    assert caught.value.remedy == "Allowed: candidate, 1."
    with pytest.raises(UserError, match=r"no model .ecko.\. Did you mean .echo."):
        ModelVersions(shelf.client, "ecko").get("1")
    decision_of(shelf)[1]()
    with pytest.raises(UserError, match="Version 1 of 'echo' is the champion"):
        decision_of(shelf)
