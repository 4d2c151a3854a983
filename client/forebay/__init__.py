"""The client of Forebay's data path: read a dataset's bytes from its workers, or from the store itself.

Workers read from each other with it, the node plugin's mounts read with it. Blocking sockets and threads; no
Kubernetes.
"""
