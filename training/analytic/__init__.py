"""A policy trained by analytic gradients: a differentiable copy of the fluid physics, unrolled, in torch.

`--algo analytic` of `train.py` is the entrance. `traffic` makes episodes and the features that no action can
change, `twin` is the physics, the metrics and the guard in torch, `policy` the network and its graph,
`learner` the gradient and the update, `run` the run folder, `judge` a quick evaluation inside the twin.
"""
