"""How large a quantized model will be, what making it takes and where it fits, from config.json alone."""
