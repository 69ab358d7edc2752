"""Class tables of teachers that were trained elsewhere: from names alone."""

from collections.abc import Sequence

from fourfold.modalities.class_table import MAX_ID, ClassTable
from fourfold.suggestions import unknown_name
from fourfold.tokenizers.text.vocabulary import COCO_CLASSES

# Other spellings of COCO's object classes, in PASCAL VOC, ADE20K and older COCO files → COCO's.
SPELLINGS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "minibike": "motorcycle",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television receiver": "tv",
    "table": "dining table",
}
NO_CLASS = "N/A"  # placeholder of the 11 ids that COCO left out


def table_of_names(names: Sequence[str], things: Sequence[str] | None = None, background: Sequence[str] = ()) -> ClassTable:
    """Return the class table of a segmentation whose class `i` is `names[i]`.

    Args:
        names: unique names by id.
        things: classes of countable objects, each one of `names`; None: those with the name of an object class of COCO.
        background: names of classes without a surface at a finite distance; names that do not occur are ignored.

    Raises:
        ValueError: there are more classes than 8 bits can hold, or `things` has an unknown name.
    """
    if len(names) > MAX_ID + 1:
        raise ValueError(f"The model has {len(names)} classes; allowed: at most {MAX_ID + 1}. Choose another model.")
    chosen = {name for name in names if is_coco_object(name)} if things is None else set(things)
    for name in sorted(chosen - set(names)):
        raise ValueError(unknown_name("class", name, names, "Correct `things`."))
    empty = {i for i, name in enumerate(names) if name in background}
    return ClassTable(
        names=tuple(names),
        background=tuple(sorted(empty)),
        things=tuple(i for i, name in enumerate(names) if name in chosen and i not in empty),
    )


def box_table(names: Sequence[str]) -> ClassTable:
    """Return the class table of boxes: every class is a thing."""
    kept = tuple(dict.fromkeys(name for name in names if name != NO_CLASS))
    return ClassTable(names=kept, things=tuple(range(len(kept))))


def coco_name(name: str) -> str:
    """Return COCO's spelling of an object class, or the name itself."""
    return SPELLINGS.get(name, name)


def is_coco_object(name: str) -> bool:
    """Return whether a class of any of these spellings is one of COCO's 80 object classes."""
    return coco_name(name) in COCO_CLASSES
