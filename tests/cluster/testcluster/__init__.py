"""A real Kubernetes cluster of one node for tests: published programs, built here, run in namespaces that leave nothing behind."""
