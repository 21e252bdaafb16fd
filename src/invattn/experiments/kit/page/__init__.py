"""Charts, pictures and tables of a page; needs no torch."""
