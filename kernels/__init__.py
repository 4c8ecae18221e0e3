"""Storage formats and compute kernels; imports with torch alone, so a serving image needs nothing else."""
