"""The REST side: one file a subject. Handlers are thin: who asks, what is asked, one call, the answer."""
