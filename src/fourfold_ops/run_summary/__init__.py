"""What a run has done, for people: a few lines in the terminal, and the head of the pages that the run wrote."""
