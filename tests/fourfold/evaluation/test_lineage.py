import pytest

from fourfold.evaluation.lineage import KINDS, of_evaluated
from fourfold.evaluation.report.page import ReportData, write_report

EVALUATED = {name: name[0] * 64 for name in ("model", "weights", "tokenizers", "teachers", "labels")}
RESULTS = {
    "transfer": {"model": EVALUATED["model"], "transfer": {"vqa_200": {}}},
    "teachers": {"depth/abs_rel": 0.1, "about": {"teachers": EVALUATED["teachers"], "labels": EVALUATED["labels"]}},
    "tokenizers": {"rgb/psnr": 20.0, "about": {"tokenizers": EVALUATED["tokenizers"], "labels": EVALUATED["labels"]}},
    "pretraining": {"samples": 9, "about": {"weights": EVALUATED["weights"]}},
}


def test_results_about_what_is_evaluated_are_kept_without_their_digests(caplog):
    kept, left_out = of_evaluated(RESULTS, EVALUATED)
    assert not left_out and not caplog.text
    assert kept == {name: {k: v for k, v in values.items() if k != "about"} for name, values in RESULTS.items()}


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, kind in KINDS.items() for part in kind.about])
def test_results_about_something_else_are_left_out_and_named_once_in_the_log_and_on_the_page(name, part, caplog):
    kept, left_out = of_evaluated(RESULTS, EVALUATED | {part: "f" * 64})
    assert name in [left for left in kept if not kept[left]]
    (sentence,) = [sentence for sentence in left_out if KINDS[name].title in sentence]
    assert f"{part} {part[0] * 8}, evaluated: ffffffff" in sentence
    assert f"kedro run --pipelines={KINDS[name].pipelines}" in sentence and caplog.text.count(sentence) == 1
    assert sentence in write_report(ReportData(left_out=left_out))


@pytest.mark.parametrize("name", RESULTS)
def test_results_without_a_digest_are_left_out(name):
    stored = {key: value for key, value in RESULTS[name].items() if key not in ("about", "model")}
    kept, left_out = of_evaluated({name: stored}, EVALUATED)
    assert kept == {name: {}} and "not recorded" in left_out[0]
