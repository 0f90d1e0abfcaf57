"""The sections of reports, a module for each analysis: its result as tables, charts and pictures."""
