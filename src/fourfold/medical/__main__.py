"""Find the files behind a key or a digest of a report: `python -m fourfold.medical --path scans p0123…-v…-s…-0042`.

Reports name no files. With the scans, and the salt if there is one, they can be looked up.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fourfold.medical.layout import ScanFiles, ScanFilesConfig
from fourfold.medical.privacy import KEY, SliceName


def files_of(scans: ScanFiles, name: str) -> Iterator[Path]:
    """Yield the files of the series of a key, or the file of a digest such as `file-0123456789abcdef`."""
    if KEY.search(name) is None:
        yield from (path for path in scans.listing.files if scans.file_name(path) == name)
        return
    wanted = SliceName.of(name)
    for group in scans.by_name.get((wanted.patient, wanted.visit), {}).values():
        for series in scans.series_of(group)[0]:
            if scans.series_digest(group, series) == wanted.series:
                yield from series.files


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the files of each name; return 1 if one has none."""
    parser = argparse.ArgumentParser(prog="python -m fourfold.medical", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", help="keys of samples, or digests of files, from a report")
    parser.add_argument("--path", required=True, help="folder of the scans, as source.path")
    parser.add_argument("--pattern", default=ScanFilesConfig.model_fields["pattern"].default, help="as source.pattern")
    parser.add_argument("--salt-file", help="as source.salt_file")
    given = parser.parse_args(arguments)
    try:
        scans = ScanFiles(ScanFilesConfig(path=given.path, pattern=given.pattern, salt_file=given.salt_file))
    except ValueError as error:
        parser.error(str(error))
    status = 0
    for name in given.names:
        found = list(files_of(scans, name))
        lines = [str(path) for path in found] or ["no file: are path, pattern and salt file those of the run?"]
        sys.stdout.write("".join(f"{name}\t{line}\n" for line in lines))
        status |= not found
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
