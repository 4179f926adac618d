"""What is kept of the ledger for good: archive, Merkle log, audit trail, replay."""
