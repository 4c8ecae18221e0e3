"""Questions and thinking in English, Japanese and Chinese, and in which language they are answered."""
