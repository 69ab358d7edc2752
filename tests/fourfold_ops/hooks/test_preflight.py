def test_refused_inputs_end_a_run_before_anything_changes(miniature):
    settings = miniature.folder / miniature.package / "settings.py"
    text = settings.read_text().replace("LockHook())", f'PreflightHook("{miniature.package}.facts.check"), LockHook())')
    settings.write_text("from fourfold_ops.hooks.preflight import PreflightHook\n" + text)
    check = "def check(stages, parameters, catalog):\n    raise ValueError(f'No path for {sorted(stages)}.')\n"
    miniature.write(f"{miniature.package}/facts.py", check)
    before = (miniature.folder / "data/mlflow.db").read_bytes()
    done = miniature.command("kedro", "run", "--pipelines=making")
    assert done.returncode == 78 and "No path for ['making']." in done.stderr.strip().splitlines()[-1]
    assert not (miniature.folder / "data/01_made").exists()
    assert (miniature.folder / "data/mlflow.db").read_bytes() == before
