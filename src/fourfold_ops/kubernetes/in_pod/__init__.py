"""Code that runs in the pods of a step: the launcher of multi-pod training, and the Kedro runner of a step's process.

It imports nothing of the driver, the plan or the Kubernetes client.
"""
