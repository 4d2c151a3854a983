"""A real Kubernetes, a real S3 server and the image, on one machine, for demo and tests. Standard library only."""
