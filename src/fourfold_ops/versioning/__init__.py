"""DVC: which data and models came out of which configuration and code."""
