"""Builds OCI images from files and imports them on the node, named by digest.

An image contains only the code of a project, like the last layer of a real one. The layers below, system and
packages, are mounted from the machine (`node.write_container_defaults`).
"""

import hashlib
import io
import json
import marshal
import os
import platform
import tarfile
import uuid
from collections.abc import Mapping
from functools import cache
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path
from typing import Any

from testcluster.machine import Machine
from testcluster.node import ENVIRONMENT, PAUSE, SOCKET

PROJECT = "/opt/project"  # folder of the code in the images
USER = 1000
# Installed scripts start the Python at the path where the environment was created; these use the path where it is mounted.
COMMANDS = "/opt/bin"
COMMAND = "#!{environment}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
PROGRAMS = {"kedro": ("kedro.framework.cli", "main"), "mlflow": ("mlflow.cli", "cli")}
NOT_CODE = {"data", "mlruns", "tests", "docs", "benchmarks", "k8s", "generated"}  # and hidden files
SYSTEM = {
    "etc/passwd": f"root:x:0:0::/:/bin/sh\nfourfold:x:{USER}:{USER}::/tmp:/bin/sh\n",
    "etc/group": f"root:x:0:\nfourfold:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_imported: set[tuple[Path, str, str]] = set()  # images by machine, name and digest
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def project_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a project by their path in an image: those that `.dockerignore` admits."""
    found: dict[str, bytes] = {f"{PROJECT[1:]}/data/.keep": b"", f"{PROJECT[1:]}/conf/local/.keep": b""}
    for parent, folders, names in os.walk(folder):
        # conf/local may contain secrets; the folders of NOT_CODE are excluded only at the top level.
        here = {".": NOT_CODE, "conf": {"local"}}.get(str(Path(parent).relative_to(folder)), set()) | {"__pycache__"}
        folders[:] = [n for n in folders if n not in here and not n.startswith(".") and not n.endswith(".egg-info")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            found[f"{PROJECT[1:]}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return found | {cache_from_source(name): compiled(name, found[name]) for name in found if name.endswith(".py")}


@cache
def compiled(name: str, source: bytes) -> bytes:
    """Return a compiled file that Python does not compare with its source (PEP 552), as k8s/image/Dockerfile makes it."""
    code = compile(source, f"/{name}", "exec", dont_inherit=True)
    return MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash(source) + marshal.dumps(code)


def project_settings() -> dict[str, Any]:
    """Return the configuration of an image: user, folder, and a path on which the code precedes installed packages."""
    environment = {
        "PATH": f"{COMMANDS}:{ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{PROJECT}/src:{PROJECT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
    }
    return {"User": f"{USER}:{USER}", "WorkingDir": PROJECT, "Env": [f"{k}={v}" for k, v in environment.items()]}


def put_project(machine: Machine, name: str, folder: Path) -> str:
    """Create an image of a project on the node; return its reference by digest, `localhost/NAME@sha256:...`."""
    return put_image(machine, name, {**commands(), **project_files(folder)}, project_settings())


def commands() -> dict[str, bytes]:
    """Return the scripts that pods run."""
    return {
        f"{COMMANDS[1:]}/{name}": COMMAND.format(environment=ENVIRONMENT, module=module, function=function).encode()
        for name, (module, function) in PROGRAMS.items()
    }


def put_pause(machine: Machine, programs: Path) -> None:
    """Create the image of the pause container on the node."""
    put_image(machine, "pause", {"pause": (programs / "pause").read_bytes()}, {"Entrypoint": ["/pause"]}, tag=PAUSE)


def put_image(machine: Machine, name: str, files: Mapping[str, bytes], settings: dict[str, Any], tag: str = "") -> str:
    """Import an image on the node, unless this process has done it; return its reference by digest."""
    archive, digest = oci_archive(files, settings, tag or f"localhost/{name}:latest")
    if (machine.folder, name, digest) in _imported:
        return f"localhost/{name}@{digest}"
    path = machine.folder / f"image-{uuid.uuid4().hex}.tar"
    path.write_bytes(archive)
    control = ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images"]
    reference = f"localhost/{name}@{digest}"
    try:
        machine.run([*control, "import", "--snapshotter", "native", str(path)])
        machine.run([*control, "tag", "--force", tag or f"localhost/{name}:latest", reference])
    finally:
        path.unlink()
    _imported.add((machine.folder, name, digest))
    return reference


def oci_archive(files: Mapping[str, bytes], settings: dict[str, Any], name: str) -> tuple[bytes, str]:
    """Return an OCI image archive of one layer, and the digest of its manifest."""
    layer = _layer(files)
    config = {
        "architecture": MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    blobs = [layer, json.dumps(config).encode()]
    kinds = ["layer.v1.tar", "config.v1+json"]
    layer_entry, config_entry = (
        {"mediaType": f"application/vnd.oci.image.{k}", "digest": _digest(b), "size": len(b)}
        for k, b in zip(kinds, blobs, strict=True)
    )
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config_entry, "layers": [layer_entry]}).encode()
    entry = {
        "mediaType": kind,
        "digest": _digest(manifest),
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": name},
    }
    out = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **{f"blobs/sha256/{_digest(blob).partition(':')[2]}": blob for blob in (*blobs, manifest)},
    }
    return _tar(out), _digest(manifest)


def _layer(files: Mapping[str, bytes]) -> bytes:
    """Return a tar with the files, the accounts, and the links of a system whose /bin is in /usr."""
    content = {**{k: v.encode() for k, v in SYSTEM.items()}, **files}
    links = {p: str(Path(f"/{p}").readlink()) for p in ("bin", "lib", "lib64", "sbin") if Path(f"/{p}").is_symlink()}
    return _tar(content, links, folders=("tmp", "proc", "sys", "dev", "run", "var", "usr"))


def _tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None, folders: tuple[str, ...] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        made: set[str] = set()
        for name in folders:
            _add_folders(tar, name + "/x", made)
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(entry)
        for name in sorted(files):
            _add_folders(tar, name, made)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o755 if files[name].startswith((b"#!", b"\x7fELF")) else 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    return out.getvalue()


def _add_folders(tar: tarfile.TarFile, name: str, made: set[str]) -> None:
    for parent in reversed(Path(name).parents):
        if str(parent) != "." and str(parent) not in made:
            made.add(str(parent))
            entry = tarfile.TarInfo(str(parent))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if str(parent) == "tmp" else 0o755
            tar.addfile(entry)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
