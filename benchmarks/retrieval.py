"""Retrieval with a trained model: neighbors across modalities and a kNN classifier, on the synthetic scenes.

    python benchmarks/retrieval.py   # after `make run`; --env smoke for the model of that environment

Recall at 1 and at 10 among the images of `test` (chance: k / N) in both spaces of fourfold.generation.retrieval, for queries by
caption, depth, classes and boxes (labels of the teachers). Then accuracy of the main object's shape and color from the 20
nearest images of `annotated`. Ties count as in random order.
"""

import argparse
import json
from itertools import islice

import numpy as np

from fourfold.data.shards import ShardSet, collate
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.retrieval import embed, knn_classify
from fourfold.metrics.dense import recall_at_k
from fourfold.scenes.scoring import main_objects
from fourfold_ops.cli.catalog import catalog_path

SPACES = ("clip", "encoder")
QUERIES = ("caption", "depth", "semseg", "det")


def columns(shards: ShardSet, split: str, names: tuple[str, ...], samples: int) -> dict:
    return collate(list(islice(shards.iterate(split, names), samples)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", help="a folder of conf/, whose catalog names model and shards")
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--gallery", type=int, default=2000, help="of the kNN classifier")
    options = parser.parse_args()
    folder = catalog_path("any_to_any", options.env)
    if not folder.is_dir():
        print(f"{folder} holds no model: run `make run` first. Nothing was measured.")
        return
    model = AnyToAny.load(folder)
    shards, labels, truth = (ShardSet(catalog_path(name, options.env)) for name in ("shards", "labels", "truth"))
    seen = columns(shards, "test", ("rgb", "caption"), options.samples)
    known = columns(labels, "test", QUERIES[1:], options.samples) | seen
    report: dict = {"samples": len(seen["rgb"]), "recall": {}, "knn": {}}
    print(f"{'among ' + str(report['samples']):18}" + "".join(f"{f'{space} R@{k}':>15}" for space in SPACES for k in (1, 10)))
    gallery = {space: embed(model, {"rgb": seen["rgb"]}, space) for space in SPACES}
    for query in QUERIES:
        vectors = {space: embed(model, {query: known[query]}, space) for space in SPACES}
        found = {f"{s} R@{k}": recall_at_k(vectors[s], gallery[s], k) for s in SPACES for k in (1, 10)}
        report["recall"][f"{query}->rgb"] = {name: round(value, 4) for name, value in found.items()}
        print(f"{query + ' → rgb':18}" + "".join(f"{value:15.3f}" for value in found.values()))
    train = columns(shards, "annotated", ("rgb",), options.gallery)["rgb"]
    sizes = {"annotated": options.gallery, "test": options.samples}
    attributes = {s: columns(truth, s, ("attributes",), size)["attributes"] for s, size in sizes.items()}
    for space in SPACES:
        fitted = embed(model, {"rgb": train}, space)
        for name in ("shape", "color"):
            classes, truths = (np.array(main_objects(attributes[s], (name,))[name]) for s in sizes)
            choices, classes_N = np.unique(classes, return_inverse=True)
            right = choices[knn_classify(fitted, classes_N, gallery[space])] == truths
            report["knn"][f"{space} {name}"] = round(float(right.mean()), 4)
            print(f"kNN {space} {name}: {right.mean():.3f} (commonest class {np.bincount(classes_N).max() / len(classes):.3f})")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
