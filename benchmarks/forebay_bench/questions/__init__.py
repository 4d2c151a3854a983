"""One module per question, each with `measure`."""
