"""Medical images as a plug-in: a source for DICOM, NIfTI and PNG, labelers for other scans and masks of the same patient.

It is no medical device, and nothing that it makes may be used for a diagnosis or treatment.
"""

import importlib


def register() -> None:
    """Add everything that this plug-in provides to the registries; `fourfold.plugins.load_plugins` calls it."""
    # By name, as in fourfold.scenes: a stage then depends only on the modules that it uses
    importlib.import_module("fourfold.medical.plugin").register()
