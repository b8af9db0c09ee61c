"""The live WebSocket. `splice` puts events in order (pure), `outbox` bounds what a socket may owe, `frames` encodes
once, `feed` brings a user's events, `watch` joins replay and feed for one socket and task, `phone` is one socket,
`looking` which devices have the page on their screen."""
