"""One module a family of rows, with a `TITLE`, a `NOTE` and `rows(repetitions)`: it is enough to put a file here."""
