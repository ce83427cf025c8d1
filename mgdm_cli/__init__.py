"""mgdm: class-balanced, hard, correctly labelled and marked synthetic medical images."""

__version__ = "0.1.0"
