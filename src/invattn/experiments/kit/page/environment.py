"""The templates of all pages, and how one is written."""

from __future__ import annotations

import logging
from pathlib import Path

import jinja2

from invattn._files import atomic_write

_LOG = logging.getLogger(__name__)


def page_environment(experiment: str) -> jinja2.Environment:
    """Return the templates of an experiment's pages, beside the shared ones; what is undefined in one is an error.

    Args:
        experiment: Its folder below ``invattn.experiments``.
    """
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(f"invattn.experiments.{folder}") for folder in (experiment, "kit")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, text: str) -> Path:
    """Write a page and return its path.

    Raises:
        OSError: If the page cannot be written; an older page then stays as it is.
    """
    atomic_write(path, text.encode("utf-8"))
    _LOG.info("wrote %s", path)
    return path
