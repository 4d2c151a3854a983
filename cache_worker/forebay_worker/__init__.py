"""The cache worker: keeps chunks of one dataset in its tiers and serves them. Knows nothing of Kubernetes."""
