"""Where weights are encoded: here, on all GPUs of this host, or on the machines of a Ray cluster."""
