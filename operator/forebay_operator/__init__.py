"""The Forebay operator: makes the cluster match Datasets, Runtimes and DataLoads."""
