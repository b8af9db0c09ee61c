"""What the containers of `compose.yaml` do before their service, or instead of one."""
