"""The way out of a sandbox: by a proxy of ours, to the hosts that the owner named."""
