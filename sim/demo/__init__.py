"""`make demo`: the real operator against the twin, the learned policy beside the HPA, on one trace."""
