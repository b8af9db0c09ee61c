"""Repositories: the mirror cache and workspaces of a runner's host, and the publisher that alone holds the
credentials."""
