"""The phone's door: REST, the live WebSocket, sign-in. Everything behind it is a message."""
