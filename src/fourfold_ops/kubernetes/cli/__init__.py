"""Commands of the project: `kedro k8s list|logs|cancel|clean|render` and `kedro submit`."""
