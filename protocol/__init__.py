"""The vocabulary of Errand: every command, event, query and phone frame, the folds over them, and the routes they take.

Imports msgspec and the standard library only; everything else imports it.
"""
