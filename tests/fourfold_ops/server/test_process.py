"""The child process, with a model of a few lines instead of one of MLflow."""

import asyncio
import json
from pathlib import Path

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.server import worker
from fourfold_ops.server.batching import Batcher, Limits
from fourfold_ops.server.metrics import Metrics
from fourfold_ops.server.process import ModelProcess, ProcessDiedError

SCRIPT = """
import os, sys
sys.path.insert(0, {folder!r})
import worker

class Model:
    def describe(self):
        print("noise of a library")
        return {{"inputs": ["caption"]}}

    def prepare(self, columns, params):
        if columns["caption"] == ["crash"]:
            os._exit(1)
        if columns["caption"] == ["wrong"]:
            raise ValueError("The caption is wrong.\\n  Choose another one.")
        return columns

    def answer(self, requests):
        if any(request["caption"] == ["fail"] for request in requests):
            raise RuntimeError("secret")
        return [{{"length": [len(text) for text in request["caption"]]}} for request in requests]

def load():
    if sys.argv[1] == "models:/echo/9":
        raise RuntimeError("The folder\\nis damaged")
    if sys.argv[1] == "models:/echo/8":
        os._exit(1)
    return Model()

answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
worker.serve(load, sys.stdin.buffer, answers)
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    script = tmp_path / "stub.py"
    script.write_text(SCRIPT.format(folder=str(Path(worker.__file__).parent)))
    monkeypatch.setattr(worker, "__file__", str(script))


def body(caption):
    return "predict", json.dumps({"inputs": {"caption": caption}}).encode()


def test_answers_of_a_batch_are_in_order_and_faults_stay_alone(stub):
    async def scenario():
        process = ModelProcess("echo", "1", {})
        await process.start()
        assert process.description == {"inputs": ["caption"]}
        table = ("invocations", json.dumps({"inputs": {"caption": ["a", "bb"]}}).encode())
        found = await process.answer([body("abc"), body("wrong"), body("fail"), table, body("x" * 1_000_000)])
        await process.stop()
        return [(status, json.loads(content)) for status, content in found]

    assert asyncio.run(scenario()) == [
        (200, {"outputs": {"length": 3}}),
        (400, {"error": "The caption is wrong. Choose another one."}),
        (500, {"error": worker.FAILED}),
        (200, {"predictions": {"length": [1, 2]}}),
        (200, {"outputs": {"length": 1_000_000}}),
    ]


def test_crash_is_noticed_and_the_server_recovers(stub):
    async def scenario():
        batcher = Batcher(Limits(), Metrics())
        process = ModelProcess("echo", "1", {})
        await process.start()
        batcher.move(process)
        task = asyncio.ensure_future(batcher.run())
        found = await asyncio.gather(*(batcher.submit(*body(text)) for text in ("a", "crash", "b")))
        task.cancel()
        await batcher.close()
        with pytest.raises(ProcessDiedError):
            await process.answer([body("a")])
        return [status for status, _ in found]

    assert asyncio.run(scenario()) == [200, 500, 200]


@pytest.mark.parametrize(("number", "reason"), [("9", "RuntimeError: The folder is damaged"), ("8", "its process ended")])
def test_model_that_cannot_be_loaded_is_a_user_error(stub, number, reason):
    with pytest.raises(UserError, match=f"Version {number} of the model echo cannot be loaded: {reason}"):
        asyncio.run(ModelProcess("echo", number, {}).start())
