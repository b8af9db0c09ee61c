"""The runner: joins the agent and the sandbox to the bus."""
