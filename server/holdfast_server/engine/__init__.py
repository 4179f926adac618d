"""The engine: group commit, admission and the sweep of due holds, over any store."""
