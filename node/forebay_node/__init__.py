"""What runs on every node: the CSI driver that mounts datasets, and the FUSE server behind each mount."""
