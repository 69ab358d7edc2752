"""Medical scans as a source: volumes and multi-frame files are cut into slices, each an 8-bit image with the report as caption.

Keys are digests of patient, visit and series. All slices of a patient fall into one split.
"""

# H rows, W columns

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from fourfold.configuration import Config
from fourfold.data.ingestion.sources import Drop, RawSample, SampleStream, Source, SourceContext, SourceSlice
from fourfold.data.ingestion.sources.digests import digest_and_version
from fourfold.data.ingestion.sources.files import after_drops
from fourfold.images import png
from fourfold.medical.formats import dicom
from fourfold.medical.layout import Group, ScanFiles, ScanFilesConfig
from fourfold.medical.privacy import SliceName, patient_of, quiet, require_unversioned
from fourfold.medical.scans import Scan, Unreadable
from fourfold.medical.windows import WindowConfig, Windowing

logger = logging.getLogger(__name__)

NOTICE = "This is no medical device: results must not be used for diagnosis or treatment."
GROUPS_PER_SLICE = 8  # scans that are read before an interrupted run can resume
DARK = 12  # gray levels, up to which a pixel counts as background
PNG_LEVEL = 1
MAX_REPORT_BYTES = 1_000_000
MIN_NAME = 3  # characters of a part of a name or number that a report is searched for
NAMES_PATIENT = "report has the name or number of the patient"


class SlicesConfig(Config):
    """Which slices of a scan become samples; the others are counted as removed."""

    every: int = Field(1, ge=1)  # the first of so many
    min_content: float = Field(0.0, ge=0, lt=1)  # share of the pixels that are not black


class MedicalConfig(ScanFilesConfig):
    """Settings of a source of scans."""

    window: WindowConfig = WindowConfig()
    slices: SlicesConfig = SlicesConfig()
    # Text files below `path` with the places of `pattern`, e.g. "{patient}/report.txt": the caption of all slices
    reports: str | None = Field(None, pattern=r"\{patient\}")


class MedicalSource(Source):
    """Reads DICOM, NIfTI and grayscale images."""

    title = "medical scans"
    config_class = MedicalConfig

    def open(self, config: MedicalConfig, context: SourceContext) -> list[SampleStream]:  # noqa: D102
        logger.warning("%s Digests in keys are pseudonyms, and text that is burned into pixels stays.", NOTICE)
        scans = _open(config)
        images = scans.images()
        runs = [images[start : start + GROUPS_PER_SLICE] for start in range(0, len(images), GROUPS_PER_SLICE)]
        slices = [SourceSlice(f"scans from {number}", partial(_read, scans, config, run)) for number, run in enumerate(runs)]
        digest, version = digest_and_version(scans.listing.root, scans.listing.files, config, context)
        salted = scans.digests.of("salt")
        stream = SampleStream(
            "medical", config.path, after_drops(scans.drops, slices), f"{digest} {salted}", version=version, group=patient_of
        )
        return [stream]

    def count(self, config: MedicalConfig, split_of: Callable[[str], str]) -> None:
        """Check that there are scans to read. How many slices they have is known once they are read."""
        _open(config)


def _open(config: MedicalConfig) -> ScanFiles:
    scans = ScanFiles(config)
    require_unversioned(scans.listing.root)
    return scans


def _read(scans: ScanFiles, config: MedicalConfig, groups: Sequence[Group]) -> Iterator[RawSample | Drop]:
    """Yield the slices of some groups. Whatever is raised within a scan becomes a counted loss."""
    for group in groups:
        found, drops = scans.series_of(group)
        yield from drops
        notes = _Notes(*_report(scans, config, group), {"class": group.category} if group.category else {})
        for series in found:
            patient, visit = scans.names_of(group)
            name = SliceName(patient, visit, scans.series_digest(group, series), 0)
            try:
                scan = scans.read(series)
            except Unreadable as error:
                yield Drop(name.key, str(error))
                continue
            yield from _samples(scan, name, config, notes)


@dataclass(frozen=True)
class _Notes:
    """What all slices of a group have in common."""

    report: bytes | None
    no_report: str  # why there is none
    metadata: dict[str, Any]


def _samples(scan: Scan, name: SliceName, config: MedicalConfig, notes: _Notes) -> Iterator[RawSample | Drop]:
    windowing = Windowing(scan, config.window)
    for position in range(len(scan.slices)):
        key = SliceName(name.patient, name.visit, name.series, scan.number_of(position)).key
        if position % config.slices.every:
            yield Drop(key, "not among the slices that slices.every chooses", "removal")
            continue
        gray_HW = windowing.gray(position)
        if isinstance(gray_HW, str):
            yield Drop(key, gray_HW)
        elif (gray_HW > DARK).mean() < config.slices.min_content:
            yield Drop(key, "slice is nearly black (slices.min_content)", "removal")
        else:
            yield RawSample(key, key, png(gray_HW, PNG_LEVEL), notes.report, notes.metadata, no_caption=notes.no_report)


def _report(scans: ScanFiles, config: MedicalConfig, group: Group) -> tuple[bytes | None, str]:
    """Return the report of a visit, and why there is none."""
    if config.reports is None:
        return None, "no caption"
    places = {"patient": group.patient, "visit": group.visit, "modality": group.modality, "class": group.category}
    path = scans.listing.root / re.sub(r"\{([a-z]+)\}", lambda place: places.get(place[1], ""), config.reports)
    try:
        if not path.resolve().is_relative_to(scans.listing.root.resolve()):
            return None, "report lies outside of the source"
        with path.open("rb") as file:
            content = file.read(MAX_REPORT_BYTES + 1)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        return None, "no report" if missing else f"report cannot be read ({type(error).__name__})"
    if len(content) > MAX_REPORT_BYTES:
        return None, "report is too large"
    text = content.decode("utf-8", "replace").casefold()
    if any(re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) for part in _identifying(group)):
        return None, NAMES_PATIENT
    return content, "no report"


def _identifying(group: Group) -> set[str]:
    """Return the parts of the patient's name and number, in lower case, which a report must not have as words."""
    texts = [group.patient]
    first = next((path for path in group.files if _is_dicom(path)), None)
    if first is not None:
        try:
            with quiet():
                identity = dicom.identity_of(first)
            texts += [identity.patient, identity.name]
        except MemoryError:
            raise
        except Exception as error:  # the file itself is counted where it is read
            logger.debug("No identity: %s", type(error).__name__)
    parts = [part for text in texts for part in re.split(r"[\s^=,;]+", text.casefold())]
    return {part for part in parts if len(part) >= MIN_NAME}


def _is_dicom(path: Path) -> bool:
    try:
        return dicom.is_dicom(path)
    except OSError:
        return False
