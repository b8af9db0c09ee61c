"""Where an agent's commands run: the contract, its drivers and the exec server that runs inside."""
