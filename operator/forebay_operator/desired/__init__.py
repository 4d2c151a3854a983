"""Pure functions from models to manifests, in short form: only the fields that we own."""
