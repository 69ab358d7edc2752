import logging
import sys

import pytest

from fourfold_ops import secrets
from fourfold_ops.errors import UserError
from fourfold_ops.secrets import (
    HIDDEN,
    Redacting,
    add_secrets_of,
    is_secret_name,
    known_secrets,
    redact,
    redacted,
    refuse_secrets,
)


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(secrets, "_added", set())


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "hub.api_key", "apiKey", "access_key_id", "Credentials"],
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["pretraining.total_tokens", "tokenizer_training", "TOKENIZERS_PARALLELISM", "key", "samples_per_shard", "PATH"]
)
def test_names_of_settings_are_not_secret(name):
    assert not is_secret_name(name)


def test_secrets_of_the_environment_are_hidden(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_1")
    monkeypatch.setenv("MAX_TOKEN", "100000")
    monkeypatch.setenv("SMALL_TOKEN", "abc")
    assert redact("got hf_planted_1 after 100000 steps of abc") == f"got {HIDDEN} after 100000 steps of abc"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://ann:pa55@host/x.git", "https://***@host/x.git"),
        ("https://ghp_abc@host/x.git", "https://***@host/x.git"),
        ("postgresql://ann:pa55@host/db", "postgresql://***@host/db"),
        ("ssh://git@host/x.git", "ssh://git@host/x.git"),
        ("abfs://box@account/x", "abfs://box@account/x"),
        ("https://host/x?sv=1&sig=abc%2F&se=2", "https://host/x?sv=1&sig=***&se=2"),
        ("git@host:x.git", "git@host:x.git"),
    ],
)
def test_passwords_in_addresses_are_hidden(address, shown):
    assert redact(f"cannot read {address} now") == f"cannot read {shown} now"


def test_files_of_a_project_with_secrets_are_read(tmp_path):
    (tmp_path / "conf/local").mkdir(parents=True)
    (tmp_path / "conf/local/credentials.yml").write_text("bucket: {client_kwargs: {any_name: planted-value}, port: 9000}\n")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config.local").write_text(
        "['remote \"s3\"']\n    access_key_id = planted-id\n    secret_access_key = planted-key\n    url = s3://bucket\n"
    )
    add_secrets_of(tmp_path)
    assert known_secrets({}) == {"planted-value", "planted-id", "planted-key"}


def test_values_under_secret_names_are_hidden_at_any_depth():
    value = {"hub": {"token": "abc", "retries": 3}, "places": ["s3://b", {"password": ["x", "y"]}], "token": None}
    assert redacted(value) == {
        "hub": {"token": HIDDEN, "retries": 3},
        "places": ["s3://b", {"password": [HIDDEN, HIDDEN]}],
        "token": None,
    }


def test_secrets_among_the_options_of_a_run_are_refused():
    refuse_secrets({"hub.token": "", "seed": 1, "total_tokens": "many"})
    with pytest.raises(UserError, match=r"--params=hub\.token=\.\.\. has the name of a secret") as error:
        refuse_secrets({"hub.token": "planted"})
    assert "conf/local/credentials.yml" in error.value.remedy and "planted" not in str(error.value)


def test_log_lines_and_tracebacks_have_no_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_1")
    try:
        raise ValueError("refused: hf_planted_1")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "with %s", ("hf_planted_1",), sys.exc_info())
    text = Redacting(logging.Formatter("%(message)s")).format(record)
    assert "planted" not in text and text.startswith(f"with {HIDDEN}") and f"ValueError: refused: {HIDDEN}" in text
