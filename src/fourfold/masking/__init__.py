"""What the model sees of a sample and what it must predict: budgets, grid masks, spans (4M-7 §2.2)."""
