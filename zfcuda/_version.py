"""The version, which is that of files of tuned plans and of reports too."""

__version__ = "0.1.0"
