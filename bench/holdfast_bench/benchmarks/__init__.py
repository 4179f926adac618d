"""The benchmarks, one a module, each with `run(plan, address) -> rows`."""
