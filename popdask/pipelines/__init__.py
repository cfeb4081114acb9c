"""The conductors: each runs the stages of one product, in order, into one store."""
