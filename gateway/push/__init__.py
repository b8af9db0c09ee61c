"""Telling a device what happened while nobody looks. `news` says what is told and to whom (pure), `courier` takes
turns with the other gateways at the decisions and sees to it that each is told, `web_push` is the channel."""
