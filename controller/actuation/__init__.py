"""What the operator changes in the cluster: replicas through /scale, traffic weights through routes."""
