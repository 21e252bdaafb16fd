"""Short texts for errors: one line, whatever the library below us said."""

import re

_LONGEST = 160


def brief(error: BaseException) -> str:
    """Return what an exception says as one short line.

    Args:
        error: any exception; one without a text gives the name of its class.

    Returns:
        the text with all white space collapsed, cut after 160 characters.
    """
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
