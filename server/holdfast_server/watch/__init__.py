"""Watch: the ledger's tail, the newest level of every item, and who follows which."""
