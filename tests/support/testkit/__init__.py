"""A real Kubernetes, a real S3 server and the image, on one machine: for the demo and the tests. Standard library only."""
