"""Progress that is read from the lines of a log."""

from fourfold_ops.kubernetes.verdicts.progress import Progress, updated


def test_progress_is_read_from_log_lines():
    lines = [
        "12:00:01 INFO    pretraining: resuming from step 1800 of 4500.",
        "12:00:16 INFO    pretraining: 1840/4500 steps, 3.21 steps/s, 829 s left, loss 2.5",
        "12:00:17 INFO    pretraining: checkpoint at step 1850.",
        "12:00:18 INFO    something else",
    ]
    progress = Progress()
    for text in lines:
        progress = updated(progress, text)
    assert progress == Progress("something else", 1840, 4500, "steps", 3.21, 1850)
    assert str(progress) == "1840/4500 steps, 3.21/s"
