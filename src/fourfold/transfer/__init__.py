"""Transfer: tasks that pretraining never saw, fine-tuned from few labels, to measure what pretraining is worth."""
