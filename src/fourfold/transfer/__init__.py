"""Tasks that pretraining never saw, learned from few labels: what is pretraining worth?"""
