"""Access to a cluster: the API client, a cache of watched objects, complete logs, and fields of Kubernetes objects."""
