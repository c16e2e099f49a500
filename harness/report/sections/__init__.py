"""The sections of a report, a file a question."""
