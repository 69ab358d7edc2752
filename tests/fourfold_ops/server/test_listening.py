"""Ports that are in use, and the next free ones."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port

from fourfold_ops.errors import UserError
from fourfold_ops.server.listening import listen, next_free

ROOT = Path(__file__).parents[3]


@pytest.fixture
def taken():
    """Two ports in a row that are in use."""
    port = free_port(2)
    with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 1)):
        yield port


def test_port_in_use_is_named_with_the_next_free_one(taken):
    free = next_free("127.0.0.1", taken)
    assert free is not None and free >= taken + 2
    with pytest.raises(UserError, match=f"Cannot listen at 127.0.0.1:{taken}: Address already in use.") as caught:
        listen("127.0.0.1", taken)
    assert caught.value.remedy == f"Choose another one: --port={free} is free."
    with listen("127.0.0.1", free) as listener:
        assert listener.getsockname() == ("127.0.0.1", free)


def test_address_of_another_machine_is_refused():
    with pytest.raises(UserError, match=r"Cannot listen at 192\.0\.2\.1:0") as caught:
        listen("192.0.2.1", 0)
    assert caught.value.remedy == "Choose another --host or --port."


def test_make_ui_names_a_port_in_use_and_the_next_free_one(taken):
    command = [
        "make",
        "--no-print-directory",
        "--old-file=.venv/.ready",
        f"BIN={Path(sys.executable).parent}",
        "ui",
        f"PORT={taken}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stdout + done.stderr
    free = next_free("127.0.0.1", taken)
    assert f"Port {taken} of 127.0.0.1 cannot be used: Address already in use. PORT={free} is free." in done.stdout
    assert "MLflow: http" not in done.stdout
