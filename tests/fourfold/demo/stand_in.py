"""A stand-in for the models behind the page: it answers at once, and what it predicts depends on the request alone."""

import asyncio
import json
import socket
import threading
import time
from typing import Any

import numpy as np
import requests
import uvicorn

from fourfold.demo.page import DemoPage
from fourfold.modalities.class_table import ClassTable
from fourfold_ops.server.batching import Limits
from fourfold_ops.server.demo import create_demo
from fourfold_ops.server.pool import Choice

SIDE = 16
CLASSES = ClassTable(
    names=("ground", "sky", "sphere", "box"), colors=((170, 160, 150), (200, 220, 240), (0, 110, 180), (220, 90, 0))
)
NOTICE = "Made-up scenes only."
LABELS = ["rgb", "depth", "normal", "semseg", "det", "caption", "clip"]
CHOICES = [
    Choice("1", "stand-in", ("champion",)),
    Choice("2", "stand-in", ("candidate",), ("dirty",)),
]


def samples() -> list[dict[str, Any]]:
    ramp = np.linspace(0, 255, SIDE).astype(np.uint8)
    image = np.stack([np.tile(ramp, (SIDE, 1)), np.full((SIDE, SIDE), 90, np.uint8), np.tile(ramp[::-1, None], (1, SIDE))], 2)
    return [{"rgb": image, "caption": "a red sphere"}, {"rgb": 255 - image, "caption": "a blue box"}]


def answer(model: str, inputs: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return all labels, as JSON. The class of the object is that of the caption, if one is given."""
    row, column = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
    depth = 2 + 6 * (1 - row) + float(model) + 0.1 * seed
    name = "box" if "box" in str(inputs.get("caption", inputs.get("det", ""))) else "sphere"
    inside = (row - 0.5) ** 2 + (column - 0.5) ** 2 < 0.06
    classes = np.where(inside, CLASSES.id_of(name), np.where(row < 0.4, 1, 0))
    if (drawn := inputs.get("semseg")) is not None and isinstance(drawn, list):
        classes = np.asarray(drawn)
    rgb = np.stack([np.full((SIDE, SIDE), 40 * int(model)), 255 * column, 255 * row], 2)
    return {
        "rgb": rgb.astype(np.uint8).tolist(),
        "depth": depth.astype(np.float16).tolist(),
        "normal": np.full((SIDE, SIDE, 3), 128, np.uint8).tolist(),
        "semseg": classes.astype(np.uint8).tolist(),
        "det": {"instances": [{"box": [0.25, 0.25, 0.75, 0.75], "class_name": name, "score": 0.9}]},
        "caption": f"version {model} saw a {name} with seed {seed}",
        "clip": np.random.default_rng(seed).normal(size=(4, 4, 8)).astype(np.float16).tolist(),
    }


class StandIn:
    """What the page asks of a pool; `requests` has what it was asked."""

    def __init__(self) -> None:
        self.limits, self.requests, self.delay = Limits(), [], 0.0

    async def choices(self) -> list[Choice]:
        return CHOICES

    async def describe(self, id: str) -> dict[str, Any]:
        return {"inputs": LABELS, "outputs": LABELS}

    async def predict(self, id: str, body: bytes) -> tuple[int, bytes]:
        content = json.loads(body)
        self.requests.append((id, content))
        await asyncio.sleep(self.delay)
        if "fail" in content["inputs"].get("caption", ""):
            return 400, json.dumps({"error": "The caption cannot be used."}).encode()
        found = answer(id, content["inputs"], content["params"]["seed"])
        return 200, json.dumps({"outputs": {name: found[name] for name in content["params"]["targets"]}}).encode()

    async def close(self) -> None:
        pass


class Served:
    """The page at a free port, with the stand-in."""

    def __init__(self) -> None:
        self.models = StandIn()
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = create_demo(self.models, DemoPage(CLASSES, samples(), NOTICE))  # type: ignore[arg-type]
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 120
        while requests.get(f"{self.url}/health", timeout=60).status_code != 200:
            assert time.monotonic() < deadline

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
