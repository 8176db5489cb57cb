"""The RLScaler resource: its types, its CustomResourceDefinition, and its way into the decision core.

`types` is the one place where fields, defaults, descriptions and rules are written; `crd` turns it into
what the API server enforces, `validation` enforces the same without an API server, `convert` hands it
to `controller.core`.
"""
