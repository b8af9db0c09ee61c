"""What is made from the messages' classes, for those who do not read Python. `python -m protocol.generate` writes the
files, `--check` compares them."""
