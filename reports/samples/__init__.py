"""Every pair of a run, with the texts of both answers in files of their own."""
