"""Plug-in: fine-tuning on the training split of public benchmarks, scored as the benchmarks themselves.

    plugins: [fourfold.scenes, fourfold.transfer.benchmarks]

Each official benchmark with a `train_split` becomes a transfer task of its name. Its measure decides the kind of the task:
classes, one of the frequent answers to a question, maps of classes, depth, or boxes. Images are read when a batch needs
them, in a seeded order; what is in memory of an example is its path and its annotation. The score is that of
`score_official` on the official split; learning rates are chosen on examples of the training split that are held out.
"""

from fourfold.transfer.benchmarks.learned import register

__all__ = ["register"]
