"""Import and export of the tokenizers that 4M released (apple/ml-4m): weights and the text vocabulary."""
