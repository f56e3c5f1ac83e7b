"""Benchmarks: a matrix of victims x methods x seeds into records, and the records into tables."""
