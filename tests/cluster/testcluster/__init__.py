"""A real Kubernetes cluster of one node: published programs, built here, run in namespaces that leave nothing behind."""
