"""The models. Nothing is imported here: the SDK takes 2 s and 80 MiB, and the scripted server must stay small."""
