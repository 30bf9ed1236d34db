"""The command line for people: see caches work, fill them, prove them, repair them, carry them."""
