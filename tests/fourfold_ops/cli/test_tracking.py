"""`kedro tracking sync` where there is nothing to send, and where there is no server."""

from click.testing import CliRunner

from fourfold_ops.cli.tracking import tracking
from fourfold_ops.tracking import offline


def test_sync_says_when_nothing_waits_and_needs_a_server(miniature):
    def sync():
        return CliRunner().invoke(tracking, ["sync"])

    done = sync()
    assert done.exit_code == 0 and done.output == "No run was recorded offline.\n"
    miniature.write(f"{offline.FOLDER}/mlflow.db", "")
    done = sync()
    assert done.exit_code == 78 and "Set MLFLOW_TRACKING_URI" in done.output
