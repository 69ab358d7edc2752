"""The tests of the library see the plug-ins of the default configuration."""

from fourfold.plugins import load_plugins

load_plugins(["fourfold.scenes"])
