"""The history: one writer folds everything that happened into DuckDB; questions are answered from snapshots of it."""
