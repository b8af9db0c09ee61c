"""The services and what they share: the bus and the actor contract. A service never imports another one: it sends it a
message."""
