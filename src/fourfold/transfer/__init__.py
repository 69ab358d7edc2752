"""Tasks that pretraining never saw, learnt from few labels: what is pretraining worth?"""
