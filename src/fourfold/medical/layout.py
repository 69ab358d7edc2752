"""Which file belongs to which patient, visit and modality: a pattern of paths, and tags of DICOM for what it leaves open."""

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from fourfold.data.ingestion.sources import Drop
from fourfold.data.ingestion.sources.files import FilesConfig
from fourfold.data.ingestion.sources.listing import Listing, list_files
from fourfold.labelers.extras import require_package
from fourfold.medical.formats import dicom, nifti, pictures
from fourfold.medical.privacy import Digests, quiet
from fourfold.medical.scans import ReadingLimits, Scan, Unreadable
from fourfold.suggestions import unknown_name

PLACES = {"patient": r"[^/]+", "visit": r"[^/]+", "class": r"[^/]+", "modality": r"[A-Za-z0-9-]+", "slice": r"[0-9]{1,6}"}
TOKENS = re.compile(r"\{([a-z]*)\}|(\*\*/)|(\*)")
EXTRA = "medical"
Plane = Literal["native", "sagittal", "coronal", "axial"]


class ScanFilesConfig(FilesConfig):
    """Where scans are, and which of them are the images; source and labelers need equal values."""

    kind: Literal["medical"] = "medical"
    # Of paths below `path`: {patient}, {visit}, {modality}, {slice}, {class}, * within a name and **/ for any folders. Other
    # files are not read. Without {patient} or {modality}, DICOM files are asked.
    pattern: str = Field("{patient}/{modality}.nii.gz", min_length=1)
    image: str | None = None  # the {modality} that becomes the image of a sample; None: each scan does
    plane: Plane = "native"  # in which volumes are cut; native: as stored
    salt_file: str | None = None  # a secret of 16 to 64 bytes: without it, digests of numbers can be found by trying all
    burned_in: Literal["drop", "keep"] = "drop"  # DICOM files that say that text is burned into their pixels
    max_voxels: int = Field(100_000_000, ge=1)  # of a series; 4 bytes each are held in memory
    max_file_bytes: int = Field(2_000_000_000, ge=1_000)

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        compiled(value)
        return value

    @model_validator(mode="after")
    def _modality_can_be_told(self) -> Self:
        if self.image is not None and "{modality}" not in self.pattern and "{patient}" in self.pattern:
            raise ValueError(
                f"image is {self.image!r}, and pattern {self.pattern!r} has no {{modality}}. Add it, or remove image."
            )
        return self

    @property
    def limits(self) -> ReadingLimits:
        """What is refused before anything is decoded."""
        return ReadingLimits(self.max_file_bytes, self.max_voxels)


@dataclass
class Group:
    """The files of one modality of a patient's visit; `category` is the {class} in their paths, "" without one."""

    patient: str
    visit: str
    modality: str
    category: str = ""
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Series:
    """The files of one scan, with what its keys are made of."""

    files: tuple[Path, ...]
    name: str  # tells the scans of a group apart: SeriesInstanceUID, a file name, or "" for the only one


class ScanFiles:
    """All scans of a configuration."""

    def __init__(self, config: ScanFilesConfig) -> None:
        require_packages()
        self.config = config
        self.digests = Digests(config.salt_file)
        self.listing = _listed(config)
        self.drops: list[Drop] = [
            Drop(self.file_name(Path(drop.name)), drop.reason, drop.what) for drop in self.listing.skipped
        ]
        groups: dict[tuple[str, str, str, str], Group] = {}
        matches = compiled(config.pattern)
        for path in self.listing.files:
            found = self._place(path, matches)
            if found is not None:
                groups.setdefault(found, Group(*found)).files.append(path)
        self._matches = matches
        self.groups = [groups[key] for key in sorted(groups)]
        if not groups:
            raise ValueError(
                f"source.path {config.path!r} has {len(self.listing.files)} files, none of which fits pattern "
                f"{config.pattern!r}. Correct the pattern: it describes paths below source.path."
            )
        self._check_image()

    def _place(self, path: Path, matches: re.Pattern[str]) -> tuple[str, str, str, str] | None:
        """Return patient, visit, modality and class of a file; None for a file that is not read."""
        match = matches.fullmatch(path.relative_to(self.listing.root).as_posix())
        if match is None:
            return None
        named = match.groupdict()
        patient, modality, category = named.get("patient"), named.get("modality"), named.get("class") or ""
        if patient is not None:
            return patient, named.get("visit") or "", modality or "", category
        try:
            with quiet():
                identity = dicom.identity_of(path)
        except MemoryError:
            raise
        except Exception as error:
            self.drops.append(self._loss(path, error))
            return None
        return identity.patient, named.get("visit") or identity.study, modality or identity.modality, category

    def _loss(self, path: Path, error: Exception) -> Drop:
        """Return the loss of a file that was taken for DICOM. Errors of pydicom quote content, so only their kind counts."""
        reason = str(error) if isinstance(error, Unreadable) else f"DICOM cannot be read ({type(error).__name__})"
        is_named = path.name.lower().endswith(dicom.ENDINGS)
        return Drop(self.file_name(path), reason, "member" if reason == dicom.NO_DICOM and not is_named else "sample")

    def _check_image(self) -> None:
        """Raise ValueError if no scan can become an image. It lists none: with a wrong pattern, modalities may be names."""
        image, known = self.config.image, {group.modality for group in self.groups}
        if image is not None and image not in known:
            raise ValueError(
                f"source.image is {image!r}; pattern {self.config.pattern!r} finds {len(known)} modalities in "
                f"{self.config.path!r}, none of which has this name. Correct image or pattern."
            )

    def file_name(self, path: Path) -> str:
        """Return what stands for a file in reports: a digest of its path below the source."""
        relative = path.relative_to(self.listing.root) if path.is_relative_to(self.listing.root) else path
        return f"file-{self.digests.of('file', relative.as_posix())}"

    def names_of(self, group: Group) -> tuple[str, str]:
        """Return the digests of patient and visit of a group."""
        visit = (group.patient, group.visit, *([group.category] if group.category else []))
        return self.digests.of("patient", group.patient), self.digests.of("visit", *visit)

    def series_digest(self, group: Group, series: Series) -> str:
        """Return the digest of a series."""
        return self.digests.of("series", group.patient, group.visit, group.modality, series.name)

    def images(self) -> list[Group]:
        """Return the groups whose scans become images."""
        return [group for group in self.groups if self.config.image in (None, group.modality)]

    @cached_property
    def by_name(self) -> dict[tuple[str, str], dict[str, Group]]:
        """The groups by digests of patient and visit, and by modality."""
        found: dict[tuple[str, str], dict[str, Group]] = defaultdict(dict)
        for group in self.groups:
            found[self.names_of(group)][group.modality] = group
        return dict(found)

    def series_of(self, group: Group) -> tuple[list[Series], list[Drop]]:
        """Return the scans of a group, and the files of it that belong to none."""
        volumes = [path for path in group.files if path.name.lower().endswith(nifti.ENDINGS)]
        images = [path for path in group.files if path.name.lower().endswith(pictures.ENDINGS)]
        others = sorted(set(group.files) - {*volumes, *images})
        root = self.listing.root
        found = [Series((path,), path.relative_to(root).as_posix() if len(volumes) > 1 else "") for path in sorted(volumes)]
        found += [Series(tuple(images), "images" if volumes else "")] if images else []
        by_uid: dict[str, list[Path]] = defaultdict(list)
        drops = []
        for path in others:
            try:
                with quiet():
                    by_uid[dicom.identity_of(path).series].append(path)
            except MemoryError:
                raise
            except Exception as error:
                drops.append(self._loss(path, error))
        return found + [Series(tuple(paths), uid or "dicom") for uid, paths in sorted(by_uid.items())], drops

    def read(self, series: Series) -> Scan:
        """Return the slices of a series.

        Raises:
            Unreadable: it cannot be used; the reason holds nothing of the file.
        """
        limits, plane = self.config.limits, self.config.plane
        first = series.files[0].name.lower()
        try:
            with quiet():
                if first.endswith(nifti.ENDINGS):
                    return nifti.read_nifti(series.files[0], plane, limits)
                if first.endswith(pictures.ENDINGS):
                    return self._pictures(series, limits)
                return dicom.read_series(series.files, plane, limits, self.config.burned_in == "keep")
        except (Unreadable, MemoryError):
            raise
        except Exception as error:  # readers raise all kinds of errors for hostile bytes, and quote them
            raise Unreadable(f"scan cannot be read ({type(error).__name__})") from None

    def _pictures(self, series: Series, limits: ReadingLimits) -> Scan:
        if self.config.plane != "native":
            raise Unreadable("images have no other plane (plane: native)")
        scan = pictures.read_pictures(series.files, limits)
        if "{slice}" not in self.config.pattern:
            return scan
        paths = [path.relative_to(self.listing.root).as_posix() for path in sorted(series.files, key=pictures.natural)]
        return replace(scan, numbers=tuple(int(found["slice"]) for path in paths if (found := self._matches.fullmatch(path))))


def require_packages() -> None:
    """Raise ValueError that names the extra if a package of it is missing."""
    for package in ("pydicom", "nibabel"):
        require_package(package, EXTRA)


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern of paths as a regular expression; raises ValueError for an unknown place."""
    parts, position, seen = [], 0, set[str]()
    for token in TOKENS.finditer(pattern):
        parts.append(re.escape(pattern[position : token.start()]))
        position = token.end()
        name, folders, _ = token.groups()
        if folders:
            parts.append("(?:.*/)?")
        elif name is None:
            parts.append("[^/]*")
        elif name not in PLACES:
            raise ValueError(unknown_name("place in pattern:", f"{{{name}}}", [f"{{{place}}}" for place in PLACES]))
        else:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{PLACES[name]})")
            seen.add(name)
    return re.compile("".join([*parts, re.escape(pattern[position:])]), re.DOTALL)


def require_folder(path: str) -> None:
    """Raise ValueError unless a path is a local folder."""
    if "://" in path:
        raise ValueError(f"path {path!r} is a URL. Scans are read from local folders: copy or mount them.")
    if not Path(path).is_dir():
        raise ValueError(f"path {path!r} is not a folder (from {Path.cwd()}). Give the folder of the scans.")


def _listed(config: ScanFilesConfig) -> Listing:
    """Return the files below the path of a configuration."""
    require_folder(config.path)
    return list_files(config, ("",), "sample")
