"""Commands whose figures the README quotes. Each prints a table and writes JSON to benchmarks/results/."""
