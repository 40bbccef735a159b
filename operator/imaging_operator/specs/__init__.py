"""The custom resources: one module per kind with the models of its spec and its status; ``crd`` makes CRDs of them."""
