"""Somebody else's runs, from tables, tracking stores and output folders of other tools, as a study to report on."""
