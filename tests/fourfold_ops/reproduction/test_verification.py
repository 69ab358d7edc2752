"""Verification names what was changed after a run, and nothing else."""

import hashlib
import io
import json
import os
import tarfile

import pytest
from dvc.repo import Repo

from fourfold_ops.errors import EXIT_DIFFERS, UserError
from fourfold_ops.reproduction.comparison import DIFFERS, IDENTICAL
from fourfold_ops.reproduction.origin import find_original
from fourfold_ops.reproduction.text import lines
from fourfold_ops.reproduction.verification import verify

SHARD = "data/01_made/train/rgb/shard-1.tar"
WEIGHTS = "data/02_tuned/größe/weights one.bin"


def verified(project, revision=None, stages=()):
    comparison = verify(project.folder, find_original(project.folder, revision, in_place=True), stages)
    return comparison, "\n".join(lines(comparison))


def edit(project, path, old, new):
    content = (project.folder / path).read_text(encoding="utf-8")
    assert old in content
    (project.folder / path).write_text(content.replace(old, new), encoding="utf-8")


def flip(path, position):
    """Change one byte, and neither size nor time of modification."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_untouched_data_hold_and_the_lock_of_dvc_has_the_same_digests(finished):
    comparison, text = verified(finished)
    assert comparison.verdict == IDENTICAL and not comparison.environment
    assert [output.num_files for output in comparison.outputs] == [4, 2, 2]
    assert text.splitlines()[-1] == "Verified: every byte of 3 outputs is as the working tree recorded it."
    assert verified(finished, "HEAD")[0].holds


def test_changed_sample_of_a_shard_is_named_by_its_key(project):
    flip(project.folder / SHARD, 512)  # the content of the first member
    comparison, text = verified(project)
    (change,) = comparison.outputs[0].files
    assert comparison.verdict == DIFFERS and change.keys.keys == ("train-10",)
    assert f"{SHARD}: different (1 key: train-10; SHA-256 " in text
    assert "train/rgb/manifest.json has" in text and "stage" in text
    assert [output.status for output in comparison.outputs] == ["different", "same", "same"]


def test_changed_manifest_and_weights_are_named_with_their_record(project):
    edit(project, "data/01_made/train/rgb/manifest.json", "shard-0.tar", "shard-x.tar")
    flip(project.folder / WEIGHTS, 0)
    (project.folder / "data/03_judged/digests.json").unlink()
    (project.folder / "data/03_judged/new.json").write_text("{}")
    comparison, text = verified(project)
    named = {change.path: change.status for output in comparison.outputs for change in output.files}
    assert named == {
        "data/01_made/train/rgb/manifest.json": "different",
        "data/01_made/train/rgb/shard-x.tar": "missing",
        WEIGHTS: "different",
        "data/03_judged/digests.json": "missing",
        "data/03_judged/new.json": "additional",
    }
    assert f"{WEIGHTS}: different (SHA-256 " in text and "größe/digests.json has" in text


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        (
            "conf/smoke/parameters.yml",
            "0.25",
            "0.75",
            "parameter tuning.rate in conf/smoke/parameters.yml: 0.25 recorded, 0.75",
        ),
        (
            "conf/base/parameters.yml",
            "seed: 0",
            "seed: 8",
            "parameter seed in conf/base/parameters.yml: 0 recorded, 8 in the file",
        ),
        ("PACKAGE/pipeline_registry.py", "train-", "test-", "input PACKAGE of making, tuning, judging: different"),
    ],
)
def test_changed_parameter_seed_and_code_are_named_also_at_a_revision(project, path, old, new, expected):
    edit(project, path.replace("PACKAGE", project.package), old, new)
    expected = expected.replace("PACKAGE", project.package)
    comparison, text = verified(project)
    assert comparison.verdict == DIFFERS and expected in text
    assert verified(project, "HEAD")[0].holds  # the commit has the old value
    project.git("commit", "-qam", "edited")
    assert expected in verified(project, "HEAD")[1]
    assert verified(project, "HEAD~")[0].holds


def test_package_of_another_version_is_named_and_does_not_fail_equal_data(project):
    (project.folder / "requirements.lock").write_text("click==0.0.1 \\\n    --hash=sha256:00\nnot-there==1.0\n")
    comparison, text = verified(project)
    assert comparison.verdict == IDENTICAL
    assert "requirements.lock click: 0.0.1 recorded, " in text
    assert "requirements.lock not-there: 1.0 recorded, not installed here" in text


def test_edited_lock_is_distinguished_from_changed_data(project):
    lock = (project.folder / "dvc.lock").read_text()
    md5 = verified(project)[0].outputs[1].recorded
    other = hashlib.md5(b"other").hexdigest() + ".dir"
    (project.folder / "dvc.lock").write_text(lock.replace(md5, other, 1))
    comparison, text = verified(project)
    assert comparison.verdict == DIFFERS
    assert "the data are of another run, or dvc.lock was edited" in text
    assert "dvc.lock contradicts itself: judging read data/02_tuned with MD5" in text


def test_change_that_was_recorded_afterward_is_found_by_its_manifest(project):
    flip(project.folder / SHARD, 512)
    with Repo(str(project.folder)) as repo:
        repo.commit(force=True)
    comparison, text = verified(project)
    assert comparison.outputs[0].recorded == comparison.outputs[0].found and comparison.verdict == DIFFERS
    assert SHARD in text and "digests.json or a manifest has others" in text


def test_without_cache_and_remote_files_are_named_by_their_manifests(project):
    (project.folder / ".dvc/cache").rename(project.folder.parent / "away")
    assert verified(project)[0].holds
    flip(project.folder / SHARD, 512)
    _, text = verified(project)
    assert f"{SHARD}: different (SHA-256 " in text and "neither cache nor remote of DVC has the listing" in text


def test_shards_that_a_set_keeps_elsewhere_are_read_there(project):
    store, folder = project.folder.parent / "store", project.folder / "data/01_made"
    objects = {}
    for shard in sorted(folder.rglob("*.tar")):
        digest = hashlib.sha256(shard.read_bytes()).hexdigest()
        objects[shard.name] = store / digest[:2] / f"{digest}.tar"
        objects[shard.name].parent.mkdir(parents=True, exist_ok=True)
        shard.rename(objects[shard.name])
    (folder / "shards_at.json").write_text(json.dumps({"place": str(store)}))
    with Repo(str(project.folder)) as repo:
        repo.commit(force=True)
    assert verified(project)[0].holds
    flip(objects["shard-1.tar"], 512)
    objects["shard-0.tar"].unlink()
    comparison, text = verified(project)
    assert comparison.verdict == DIFFERS and f"{SHARD}: different (SHA-256 " in text
    assert f"{SHARD.replace('-1', '-0')}: missing (SHA-256 absent in {store}, train/rgb/manifest.json has" in text
    assert "run its stage again, which makes them" in text and "changed before it was recorded" not in text
    (folder / "shards_at.json").write_text('{"place": "s9://nowhere/x"}')
    with pytest.raises(UserError, match=r"s9://nowhere/x/.*\.tar cannot be read \("):
        verified(project)


def test_missing_output_and_selected_stages(project):
    (project.folder / "data/03_judged").rename(project.folder / "data/away")
    comparison, text = verified(project)
    assert comparison.verdict == DIFFERS and "data/03_judged is absent. Run `dvc pull data/03_judged`, or its stage." in text
    assert verified(project, stages=("making", "tuning"))[0].holds
    with pytest.raises(UserError, match=r"has no stage .tunnig.\. Did you mean .tuning."):
        verified(project, stages=("tunnig",))


def test_command_ends_with_0_only_if_the_record_holds(project, tmp_path):
    done = project.command("kedro", "reproduce", "--verify-only")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["stage", "output", "files", "result"]
    assert not (project.folder / "reproductions").exists() and not project.git("status", "--porcelain")
    flip(project.folder / SHARD, 512)
    done = project.command("kedro", "reproduce", "HEAD", "--verify-only", "--folder", str(tmp_path / "report"))
    assert done.returncode == EXIT_DIFFERS and "train-10" in done.stdout
    report = json.loads((tmp_path / "report/comparison.json").read_text())
    assert report["verdict"] == DIFFERS and report["outputs"][0]["files"][0]["keys"]["keys"] == ["train-10"]
    page = (tmp_path / "report/comparison.html").read_text()
    assert "train-10" in page and "Not verified" in page
    with pytest.raises(UserError, match="'no-such' is no commit, branch or tag"):
        find_original(project.folder, "no-such")


def test_samples_of_archives_are_compared_by_key(tmp_path):
    from fourfold_ops.reproduction.archives import different_keys

    def archive(members):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return stream.getvalue()

    before = [("a.png", b"1"), ("a.txt", b"2"), ("b.png", b"3"), ("c.png", b"4")]
    found = tmp_path / "found.tar"
    for after, keys in {
        (("a.png", b"1"), ("a.txt", b"x"), ("b.png", b"3"), ("c.png", b"4")): ("a",),
        (("a.png", b"1"), ("a.txt", b"2"), ("c.png", b"4")): ("b",),
        (*before, ("d.png", b"5")): ("d",),
        (("b.png", b"3"), ("a.png", b"1"), ("a.txt", b"2"), ("c.png", b"4")): (),
    }.items():
        found.write_bytes(archive(after))
        difference = different_keys(io.BytesIO(archive(before)), found)
        assert difference.keys == keys and difference.order_differs == (not keys)
    found.write_bytes(b"no tar")
    assert different_keys(io.BytesIO(archive(before)), found) is None
