"""Storage formats, later kernels too; imports with torch alone, so a serving image needs nothing else.

May import: nothing of ours.
"""

__version__ = "0.1.0"
