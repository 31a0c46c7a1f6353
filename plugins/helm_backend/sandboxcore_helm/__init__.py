"""Helm releases as environments: what ``pip install 'sandboxcore[helm]'`` brings."""
