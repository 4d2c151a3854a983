"""A real Kubernetes on this machine: control plane on the host, every node in namespaces of its own."""

from testkit.cluster.cluster import Cluster
from testkit.cluster.node import Node

__all__ = ["Cluster", "Node"]
