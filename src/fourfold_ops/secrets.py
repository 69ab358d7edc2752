"""Keeps secrets out of everything that is recorded or logged: MLflow, patches of dirty trees, log files and the terminal."""

import configparser
import itertools
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fourfold_ops.errors import UserError

HIDDEN = "***"
MIN_LENGTH = 6  # shorter values are no secrets: they occur everywhere
# `total_tokens` and `tokenizer_training` are settings of models, `hub_token` is a secret: a name counts by its words.
SECRET_WORDS = {"password", "passwd", "passphrase", "secret", "token", "credentials", "credential", "apikey", "pat"}
SECRET_PAIRS = {("api", "key"), ("access", "key"), ("account", "key"), ("private", "key"), ("sas", "token"), ("secret", "key")}
USER_INFO = re.compile(
    r"(\b[a-z][a-z0-9+.-]*://)(?:[^/\s:@]*:[^/\s@]*|(?<=http://)[^/\s@]+|(?<=https://)[^/\s@]+)@", re.IGNORECASE
)
SIGNATURE = re.compile(r"([?&](?:sig|signature|token|x-amz-signature|x-amz-credential|x-amz-security-token)=)[^&\s'\"]+", re.I)
# Files that contain secrets whatever git says about them.
SECRET_FILES = re.compile(
    r"(^|/)(\.env(\..+)?|\.netrc|\.pypirc|\.git-credentials|config\.local|id_[a-z0-9]+|[^/]*credentials?[^/]*\.[a-z]+|"
    r"[^/]+\.(pem|key|p12|pfx|kdbx))$",
    re.IGNORECASE,
)
_added: set[str] = set()  # values from files of the project


def is_secret_name(name: str) -> bool:
    """Return whether a variable or parameter of this name holds a secret: `AWS_SECRET_ACCESS_KEY`, `hub.api_key`."""
    words = [word for word in re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) if word]
    return bool(SECRET_WORDS & set(words)) or bool(SECRET_PAIRS & set(itertools.pairwise(words)))


def known_secrets(environment: Mapping[str, str] = os.environ) -> set[str]:
    """Return the secret values of the environment and of the files that `add_secrets_of` has read."""
    return {value for name, value in environment.items() if _is_secret(value) and is_secret_name(name)} | _added


def add_secrets(values: Iterable[Any]) -> None:
    """Hide these values from now on; numbers and short texts are ignored."""
    _added.update(value for value in values if isinstance(value, str) and _is_secret(value))


def add_secrets_of(project_path: Path, conf_source: str = "conf") -> None:
    """Hide the values of `conf/*/credentials*.yml` and the keys of DVC's remotes in `.dvc/config.local`."""
    import yaml

    for path in sorted((project_path / conf_source).glob("*/**/credentials*.y*ml")):
        try:
            add_secrets(_leaves(yaml.safe_load(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # Kedro reports a damaged file
    for name in ("config.local", "config"):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        try:
            parser.read(project_path / ".dvc" / name, encoding="utf-8")
        except (OSError, ValueError, configparser.Error):
            continue  # DVC reports a damaged file
        add_secrets(value for section in parser.values() for key, value in section.items() if is_secret_name(key))


def refuse_secrets(runtime_params: Mapping[str, Any]) -> None:
    """Raise UserError for `--params` with the name of a secret: the command of a run is recorded so that it can be repeated."""
    found = sorted(name for name, value in runtime_params.items() if is_secret_name(name) and isinstance(value, str) and value)
    if found:
        raise UserError(
            f"--params={found[0]}=... has the name of a secret, and the options of a run are recorded.",
            "Put the value into conf/local/credentials.yml or an environment variable.",
        )


def redact(text: str) -> str:
    """Return `text` with every known secret, and users and signatures in addresses, replaced by `***`."""
    for secret in sorted(known_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return SIGNATURE.sub(rf"\g<1>{HIDDEN}", USER_INFO.sub(rf"\g<1>{HIDDEN}@", text)) if "://" in text else text


def redacted(value: Any, name: str = "") -> Any:
    """Return a JSON value in which the secrets of its texts, and the texts under secret names, are hidden."""
    if isinstance(value, dict):
        return {key: redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, name) for item in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if value and is_secret_name(name) else redact(value)


class Redacting(logging.Formatter):
    """Formats records as another formatter does, without secrets, also in tracebacks."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return redact(self._inner.format(record))


def _is_secret(value: str) -> bool:
    return len(value) >= MIN_LENGTH and not value.isdigit()


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]
