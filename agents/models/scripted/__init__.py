"""The scripted model: a local server that speaks the Messages API over HTTP, as strict as the real one. Not Claude.

It stands in where there is no ANTHROPIC_API_KEY, and in tests, always behind the real SDK. It keeps no conversation: a
scenario (`scenarios/`) is a generator that is run again over the request's messages; what it yields next is the answer.
"""
