"""The only callers of the workers' control API."""
