"""The agent: one loop over four Protocols. Knows neither NATS nor Docker."""
