"""The demo: hundreds of agents race for one catalogue, and the checks judge what came of it."""

from holdfast_server.demo.race import PACINGS, Race, Result, run

__all__ = ["PACINGS", "Race", "Result", "run"]
