"""A read-only file system over a dataset's index and workers, speaking the kernel's FUSE protocol itself."""
