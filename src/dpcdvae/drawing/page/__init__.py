"""A page of crystals for the browser: a table, a viewer, films, and the numbers of an evaluation, in one file."""
