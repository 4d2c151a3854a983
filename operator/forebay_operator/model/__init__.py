"""What the operator knows about: the custom resources and the names that it gives to things."""
