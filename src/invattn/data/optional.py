"""Import of the libraries that only some data sets need."""

import importlib
from types import ModuleType

from invattn._errors import DataError


def optional_module(name: str, *, distribution: str) -> ModuleType:
    """Import a module, or say in one line how to install it.

    Args:
        name: the module, for example `"scipy.io"`.
        distribution: what pip calls it, for example `"scipy"`.

    Returns:
        the module.

    Raises:
        DataError: when it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{distribution} is needed for this data set and is not installed: "
            "pip install 'invertible-attention[experiments]'"
        ) from error
