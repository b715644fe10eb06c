"""A published data set, fetched from its mirrors or taken from a copy, every file checked."""
