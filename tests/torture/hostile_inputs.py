"""Ingest hostile inputs, each beside good samples: `python tests/torture/hostile_inputs.py --seed=0 --count=500`.

A fault is a crash (anything but one clear error), a hang, a silent loss (an image that is neither kept nor counted), a caption
that the input does not have, or a good sample that is lost. Prints one line with the counts; exits with 1 after a fault, and
names the inputs. The same seed and number make the same input.
"""

import argparse
import logging
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile_makers import MAKERS, Hostile, add_good

from fourfold.data.captions import captions_of
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.shards import ShardSet

LIMIT = 20.0  # seconds of one input; usual are 0.1
MEMORY = 4 << 30  # bytes of address space beyond what the process has
MAX_MESSAGE = 4000  # characters of a clear error


@dataclass
class Outcome:
    """What became of one input.

    Attributes:
        error: the message of a clear error, or "".
        crash: an exception of another kind, or "".
        seen: samples that were kept or counted.
        others: counted losses of other units: archives, members, rows, ...
        captions: of all kept samples, further ones too.
    """

    error: str = ""
    crash: str = ""
    seen: int = 0
    others: int = 0
    captions: list[str] = field(default_factory=list)


def faults(made: Hostile, good: list[str], outcome: Outcome) -> Iterator[str]:
    """Yield what went wrong with an input."""
    if outcome.crash:
        yield f"crash: {outcome.crash}"
    elif outcome.error:
        if "\n" in outcome.error or len(outcome.error) > MAX_MESSAGE:
            yield f"unclear error of {len(outcome.error)} characters: {outcome.error[:200]}"
    else:
        if lost := set(good) - set(outcome.captions):
            yield f"{len(lost)} good samples were lost"
        wanted = len(good) + made.samples
        if outcome.seen < wanted and (made.is_exact or not outcome.others):
            yield f"silent loss: {outcome.seen} of {wanted} samples were kept or counted"
        if made.is_exact and outcome.seen > wanted:
            yield f"{outcome.seen} samples were kept or counted, there are {wanted}"
        odd = [text for text in outcome.captions if made.texts is not None and text not in made.texts and text not in good]
        if odd:
            yield f"made-up caption {odd[0]!r:.100}"


def run_one(seed: int, number: int, folder: Path) -> tuple[str, list[str]]:
    """Make one input, ingest it, and return its kind and its faults."""
    rng = random.Random(f"{seed}/{number}")
    source = folder / "source"
    source.mkdir(parents=True)
    made = MAKERS[number % len(MAKERS)](source, rng)
    good = list(add_good(source, made.kind))
    config = IngestionConfig.model_validate(
        {
            "source": {"kind": made.kind, "path": str(source), **made.settings},
            "cleaning": {"min_side": 8},
            "image_size": 8,
            "val_share": 0.3,
            "test_share": 0.3,
            "max_drop_share": 1.0,
        }
    )
    return made.what, list(faults(made, good, _outcome(config, folder / "out")))


def _outcome(config: IngestionConfig, out: Path) -> Outcome:
    try:
        shards: ShardSet = ingest(config, 0, out)
    except ValueError as error:
        return Outcome(error=str(error))
    except BaseException as error:
        return Outcome(crash=f"{type(error).__name__}: {error}"[:500])
    report = ingestion_report(out)["by_source"]["source"]
    others = sum(
        sum(counts.values()) for unit, counts in report.items() if unit.endswith("_dropped") and unit != "samples_dropped"
    )
    samples = (sample for split in shards.splits() for sample in shards.iterate(split, ["caption"]))
    captions = [text for sample in samples for text in captions_of(sample["caption"])]
    return Outcome(seen=report["seen"], others=others, captions=captions)


def work(seed: int, numbers: list[int], folder: Path, results: Any) -> None:
    """Run inputs one after the other; each sends its number before and its result after."""
    logging.disable(logging.CRITICAL)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for number in numbers:
        results.send((number, None))
        place = folder / str(number)
        results.send((number, run_one(seed, number, place)))
        shutil.rmtree(place, ignore_errors=True)
    results.send(None)


def run_all(seed: int, count: int, folder: Path, limit: float = LIMIT) -> dict[int, tuple[str, list[str]]]:
    """Run all inputs in a child; after a hang or a death the next child continues with the next input."""
    results: dict[int, tuple[str, list[str]]] = {}
    numbers = list(range(count))
    while numbers:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=work, args=(seed, numbers, folder, theirs))
        child.start()
        theirs.close()
        current, problem = numbers[0], "crash: the process died"
        try:
            while ours.poll(limit) and (message := ours.recv()) is not None:
                current, result = message
                if result is not None:
                    results[current] = result
            problem = "crash: the process died" if not child.is_alive() else f"hang: more than {limit:g} s"
        except EOFError:
            pass
        if current not in results:
            results[current] = (f"input of maker {MAKERS[current % len(MAKERS)].__name__}", [problem])
        child.kill()
        child.join()
        numbers = [number for number in numbers if number not in results]
    return results


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        results = run_all(options.seed, options.count, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    wrong = {number: result for number, result in results.items() if result[1]}
    for number, (what, problems) in sorted(wrong.items()):
        print(f"input {number} of seed {options.seed} ({what}): {'; '.join(problems)}")
    kinds = Counter(problem.partition(":")[0] for _, problems in wrong.values() for problem in problems)
    found = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common()) or "no crash, hang, silent or made-up value"
    print(f"{len(results)} hostile inputs of seed {options.seed} in {time.monotonic() - began:.0f} s: {found}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
