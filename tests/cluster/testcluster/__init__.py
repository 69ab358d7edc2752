"""A real Kubernetes cluster with one node, built from published sources, in namespaces that leave nothing behind."""
