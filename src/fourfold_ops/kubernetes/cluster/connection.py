"""What the `kubernetes` package is used for: finding and refreshing credentials, TLS, and parsing quantities.

The package is imported inside the functions, because its import is slow and large (benchmarks/driver_memory.py).
"""

import os
from decimal import Decimal
from typing import Any

from fourfold_ops.errors import UserError


def credentials(context: str | None) -> Any:
    """Return the `kubernetes.client.Configuration` for a context of the kubeconfig.

    Args:
        context: Name of the context. None: the current context, or the service account when running in a pod.

    Raises:
        UserError: There is no kubeconfig, or it has no such context.
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
    except (ConfigException, OSError, YAMLError, TypeError) as error:  # TypeError: the file is not a mapping
        cause = " ".join(str(error).split()).strip(".")
        raise UserError(
            f"No connection to a cluster: {cause}.", "Set KUBECONFIG, or correct `context` in kubernetes.yml."
        ) from None
    return configuration


def connection_pool(configuration: Any) -> Any:
    """Return a urllib3 pool manager with the certificates of a configuration."""
    from kubernetes.client.rest import RESTClientObject

    configuration.connection_pool_maxsize = 32
    return RESTClientObject(configuration).pool_manager


def quantity(text: str) -> Decimal:
    """Return the value of a Kubernetes quantity, e.g. 0.5 for "500m". Raises ValueError if it is not one."""
    from kubernetes.utils import parse_quantity

    return Decimal(parse_quantity(text))
