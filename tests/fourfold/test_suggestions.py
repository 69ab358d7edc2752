"""The message about an unknown name."""

from fourfold.suggestions import unknown_name


def test_message_has_name_suggestion_known_names_and_remedy():
    text = unknown_name("modality", "dpeth", ["depth", "clip", "caption"], "Add it in fourfold/modalities.")
    wanted = "Unknown modality 'dpeth'. Did you mean 'depth'? Known: caption, clip, depth. Add it in fourfold/modalities."
    assert text == wanted


def test_no_suggestion_when_no_known_name_is_near():
    assert unknown_name("preset", "xyz", ["greedy", "dense"]) == "Unknown preset 'xyz'. Known: dense, greedy."
    assert unknown_name("source", "folder", []) == "Unknown source 'folder'. Known: none."
