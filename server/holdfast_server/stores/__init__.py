"""Stores: where batches of operations are decided and kept."""
