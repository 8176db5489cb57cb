"""Budgets: a group of RLScalers shares one limit of replicas or of cost, by priority and then evenly.

`allocation` is the arithmetic and knows nothing of Kubernetes. `book` keeps the RLScalerBudgets and their
members, `sharing` answers the engine's last question (how many replicas may each have now?), `reporting`
writes the budgets' statuses. `service.Budgets` is all that the operator sees.
"""
