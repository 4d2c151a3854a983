"""The Container Storage Interface for the kubelet: gRPC wiring around ``forebay_node.volumes``."""
