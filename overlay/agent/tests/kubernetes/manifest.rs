//! deploy/kubernetes.yaml is what its agent needs, and no more.
