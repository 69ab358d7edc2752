import subprocess

from fourfold_ops.tracking.provenance import flat, git_tags


def test_nested_parameters_get_dotted_names():
    nested = {"a": {"b": 1, "c": []}, "d": [{"e": 2}, 3], "f": [1, 2]}
    assert flat(nested) == {"a.b": 1, "a.c": [], "d.0.e": 2, "d.1": 3, "f": [1, 2]}
    assert flat({}) == {}


def test_repository_of_another_user_is_reported_with_the_remedy(tmp_path, monkeypatch, caplog):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # a switch of git's own tests
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.delenv("KEDRO_GIT_TAGS", raising=False)
    assert git_tags(tmp_path) == {}
    assert "dubious ownership" in caplog.text and f"safe.directory {tmp_path}" in caplog.text


def test_repository_without_a_remote_is_no_problem(tmp_path, monkeypatch, caplog):
    author = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    for command in (("init", "-q"), (*author, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.delenv("KEDRO_GIT_TAGS", raising=False)
    assert len(git_tags(tmp_path)["git.commit"]) == 40 and caplog.text == ""
