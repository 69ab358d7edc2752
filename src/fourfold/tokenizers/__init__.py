"""What turns labels into tokens and back: a VQ-VAE a modality, WordPiece, coordinates as words; and shards of tokens."""
