"""The extension and its operators `torch.ops.ketgrad.*` as typed functions."""
