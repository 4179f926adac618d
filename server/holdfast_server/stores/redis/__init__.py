"""The Redis store: one atomic script call a batch, and the embedded Valkey."""
