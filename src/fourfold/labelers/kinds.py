"""Kinds of labelers: families of labelers that `conf/` names for a modality, together with their settings.

    pseudo_labeling:
      labelers:
        depth: {kind: transformers, model: depth-anything/Depth-Anything-V2-Small-hf, revision: 5426e4f}
        semseg: {kind: packaged}
        normal: normals_from_depth   # the name of a registered labeler
        clip: null                   # this modality is left out

Most kinds are plug-ins that are loaded when `conf/` names them, so their code counts only for runs that use them.
"""

from collections.abc import Mapping
from typing import Any

from fourfold.labelers.registry import LABELERS
from fourfold.plugins import load_plugins
from fourfold.suggestions import unknown_name

# Plug-ins by kind; their labelers are called `<kind>_<modality>`. None: registered already, or by a plug-in of the run.
KINDS: dict[str, str | None] = {
    "by_source": "fourfold.labelers.by_source",
    "cityscapes": "fourfold.labelers.cityscapes",
    "fusion": "fourfold.labelers.fusion",
    "geometry": None,
    "onnx": "fourfold.labelers.onnx_models",
    "packaged": "fourfold.labelers.packaged",
    "precomputed": "fourfold.labelers.precomputed",
    "scenes": None,
    "torchvision": "fourfold.labelers.torchvision_models",
    "transformers": "fourfold.labelers.hub",
}


def expanded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a `LabelingConfig` with names instead of kinds, and without the modalities that are left out.

    `labelers: {depth: {kind: transformers, model: X}}` becomes `labelers: {depth: transformers_depth}` and
    `settings: {transformers_depth: {model: X}}`.

    Args:
        values: what `conf/` holds; only `labelers` and `settings` are looked at.

    Raises:
        ValueError: a kind is unknown or missing, or does not produce the modality.
    """
    labelers, settings = values.get("labelers"), values.get("settings")
    if not isinstance(labelers, Mapping) or not isinstance(settings or {}, Mapping):
        return dict(values)  # reported as a wrong type when the field is validated
    names: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for modality, labeler in labelers.items():
        if labeler is None:
            continue
        if isinstance(labeler, Mapping):
            names[modality] = labeler_of_kind(modality, labeler.get("kind"))
            found[names[modality]] = {key: value for key, value in labeler.items() if key != "kind"}
        else:
            names[modality] = labeler
    for name in (*names.values(), *(settings or {})):
        load_kind_of(name)
    return {**values, "labelers": names, "settings": {**(settings or {}), **found}}


def labeler_of_kind(modality: str, kind: Any) -> str:
    """Load a kind and return the name of its labeler of a modality; raises ValueError when there is none."""
    if not isinstance(kind, str):
        raise ValueError(f"labelers.{modality} is a section without `kind`. Add one of: {', '.join(KINDS)}.")
    if kind not in KINDS:
        raise ValueError(unknown_name("kind of labeler", kind, KINDS, "Or give the name of a registered labeler."))
    if (plugin := KINDS[kind]) is not None:
        load_plugins([plugin])
    by_modality = {entry.modality: name for name, entry in LABELERS.items() if entry.kind == kind}
    if modality not in by_modality:
        known = ", ".join(by_modality) or "nothing without its plug-in, which `plugins` must name"
        raise ValueError(f"Kind {kind!r} does not produce {modality!r}. It produces: {known}. Choose another kind.")
    return by_modality[modality]


def load_kind_of(name: Any) -> None:
    """Load the kind of a labeler that is given by its name, as saved settings do."""
    for kind, plugin in KINDS.items():
        if plugin is not None and isinstance(name, str) and name.startswith(f"{kind}_"):
            load_plugins([plugin])
