"""Peers: small servers of the same contract, for a comparison with what else one could write.

Each answers Reserve, Commit, Release and GetStock with the messages of `holdfast.v1`, over the same
gRPC options as Holdfast, and keeps its stock in the way its name says:

    echo              decides nothing: what gRPC alone costs
    evalsha           one EVALSHA a call on redis-py, a script an operation
    postgres          SELECT ... FOR UPDATE in a transaction, every commit waits for the disk
    postgres-async    the same with synchronous_commit off: may lose the last half second
    redlock           a lock a SKU on one Valkey, then read, decide in Python, write
    redlock-3         the same with the locks on three independent Valkeys
    unlocked          as redlock without the lock: a mistake, here to show that it is found

None keeps a ledger, signals pressure, lets one watch, ships, recounts or archives; none knows
principals, locations, partial or backordered holds; none forgets what ended.
"""
