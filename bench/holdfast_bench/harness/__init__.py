"""The load harness: ten thousand agent sessions against a server, and what came of it."""
