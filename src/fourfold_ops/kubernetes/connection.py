"""The way to a cluster: what the `kubernetes` package is used for, finding credentials and refreshing them."""

import os
from typing import Any

from fourfold_ops.errors import UserError


def credentials(context: str | None) -> Any:
    """Return the configuration of `kubernetes` for a context of KUBECONFIG (None: its own, or the pod's service account).

    Raises UserError when there is none.
    """
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
    from yaml import YAMLError

    configuration = Configuration()
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ and context is None and "KUBECONFIG" not in os.environ
    try:
        if in_cluster:
            load_incluster_config(client_configuration=configuration)
        else:
            load_kube_config(os.environ.get("KUBECONFIG"), context, configuration)
    except (ConfigException, OSError, YAMLError, TypeError) as error:  # the last where the file is no mapping
        words = " ".join(str(error).split()).strip(".")
        raise UserError(
            f"There is no way to a cluster: {words}.", "Set KUBECONFIG, or correct `context` in kubernetes.yml."
        ) from None
    return configuration


def connection_pool(configuration: Any) -> Any:
    """Return the urllib3 pool that speaks to the configuration's server with its certificates."""
    from kubernetes.client.rest import RESTClientObject

    configuration.connection_pool_maxsize = 32
    return RESTClientObject(configuration).pool_manager
