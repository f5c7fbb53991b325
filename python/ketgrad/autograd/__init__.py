"""Differentiation of native calls: the derivative rule, and its registration with autograd, functorch and graphs."""
