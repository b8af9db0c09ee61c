"""The scheduler: the process in which the task actors live."""
