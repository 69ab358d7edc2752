import io
import logging

from fourfold_ops.cli.terminal import WithoutTraceback


def test_terminal_shows_no_traceback_and_other_handlers_do():
    streams = io.StringIO(), io.StringIO()
    plain = logging.Formatter("%(levelname)s %(message)s")
    logger = logging.Logger("test")
    for stream, formatter in zip(streams, (WithoutTraceback(plain), plain), strict=True):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    try:
        raise OSError("No space left on device")
    except OSError:
        logger.exception("failed to copy %s", "a.tar")
    assert streams[0].getvalue() == "ERROR failed to copy a.tar\n"
    assert streams[1].getvalue().startswith("ERROR failed to copy a.tar\nTraceback")
