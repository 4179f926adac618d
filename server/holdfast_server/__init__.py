"""Holdfast's server: stock holds for AI agents over gRPC, decided in Lua."""

import os

# gRPC reads this once, when it is loaded.  Its EventEngine poller costs 20 to 30 % more CPU a call
# under asyncio than the poller before it (bench/README.md); whoever sets the variable decides.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
