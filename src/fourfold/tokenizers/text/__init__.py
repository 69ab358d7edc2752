"""The text vocabulary, and every modality that is written with it: captions, boxes, palettes, metadata, poses."""
