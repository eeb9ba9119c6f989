"""What is measured: one file a section, each with `run(bench) -> dict` whose result is kept as JSON."""
