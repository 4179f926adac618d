"""Holdfast's server: stock holds for AI agents over gRPC, decided in Lua."""
