class BuildError(Exception):
    """The build stops; the message says what was expected and what to do."""
